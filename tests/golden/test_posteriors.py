"""Posteriors under wide priors against published estimates: maximum likelihood, REML, and brms.

The likelihoods are compared exactly in test_deviance.py; here the whole way from the table to the draws is walked.
"""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.spec.priors import check_priors
from tests.golden.studies import STUDIES, published

pytestmark = [pytest.mark.sampling, pytest.mark.filterwarnings("ignore::psymech.errors.DesignWarning")]

FITS = published()
BRMS = {(f["data"], f["formula"].strip()): f["table"] for f in published("alda_brms.json")["fits"]}
SEED = 20

# Posterior means under flat priors and ML estimates differ by terms of order 1/n; the Monte Carlo error of a mean of
# 4000 nearly independent draws is 0.016 posterior SD.
FIXED_TOLERANCE = 0.15  # posterior SDs
# Relative; a variance's posterior is skewed, so its median lies above the ML estimate by an amount that falls with the
# number of units: 3% with 66 patients.
SD_TOLERANCE = 0.10
# brms's draws have their own Monte Carlo error (effective sizes down to 145) and priors that the book chose.
BRMS_FIXED_TOLERANCE = 0.2
BRMS_SD_TOLERANCE = 0.4  # posterior SDs of the SD
SE_TOLERANCE = 0.10  # posterior SDs against standard errors, which take the variances as known
LOOSE_SE = {"sleepstudy_RS_REML": 0.20}  # with 18 subjects not knowing the variances adds a tenth


def fit(name: str) -> xr.DataTree:
    """Fit with priors wide enough not to matter: 20 outcome SDs for SDs, 1000 for fixed effects per SD of a column."""
    data, spec = STUDIES[name]()
    y = data.values(spec.outcome)
    wide = psm.HalfNormal(20 * float(np.nanstd(y)))
    flat = {"beta": psm.Normal(float(np.nanmean(y)), 1000 * float(np.nanstd(y))), "sigma": wide}
    for block in ("patient", "therapist"):
        if block in data.levels and block not in spec.without:
            flat[f"sd_{block}"] = wide
    for block in spec.random:
        if len(block.terms) > 1:
            flat[f"corr_{block.level}"] = psm.LKJ(1.0)
    tree = psm.fit(replace(spec, priors=check_priors(flat)), data, seed=SEED, progressbar=False)
    assert tree.attrs["engine"] == "collapsed"
    return tree


# The levels whose units are many enough for the median of the SD to stay near the REML estimate.
MANY_UNITS = {
    "BtheB_RI_ML": ("patient",),
    "Reisby_RS_ML": ("patient",),
    "rbmi_three_level_RI_REML": ("patient", "therapist"),
    "rbmi_three_level_ML": ("patient",),
    "ENRICHD_sqrt_RS_ML": ("patient",),
    "dietox_RS_REML": ("patient",),
    "sleepstudy_RS_REML": (),  # 18 subjects: compared by its likelihood alone
}


@pytest.mark.parametrize("name", MANY_UNITS)
def test_posterior_agrees_with_published_estimates(name: str) -> None:
    published_fit = FITS[name]
    tree = fit(name)
    assert psm.check_sampling(tree).verdict == "ok"
    posterior = tree["posterior"]
    for label, value in published_fit["fixef"].items():
        draws = posterior["beta"].sel(term=label)
        sd = float(draws.std())
        assert abs(float(draws.mean()) - value) < FIXED_TOLERANCE * sd, label
        assert abs(sd / published_fit["se"][label] - 1) < LOOSE_SE.get(name, SE_TOLERANCE), label
    assert abs(float(posterior["sigma"].median()) / published_fit["sigma2"] ** 0.5 - 1) < SD_TOLERANCE
    for level in MANY_UNITS[name]:
        expected = np.sqrt(published_fit["levels"][level]["variances"])
        found = posterior[f"sd_{level}"].median(("chain", "draw")).values
        np.testing.assert_allclose(found, expected, rtol=SD_TOLERANCE)


BRMS_MODELS = {
    "ALDA_unemp_A_ML": ("unemployment_pp", "cesd ~ 0 + Intercept + months + (1 + months | id)", {"months": "time"}),
    "ALDA_unemp_C_ML": (
        "unemployment_pp",
        "cesd ~ 0 + Intercept + months + unemp + months:unemp + (1 + months | id)",
        {"months": "time", "months:unemp": "time:unemp"},
    ),
}


@pytest.mark.parametrize("name", BRMS_MODELS)
def test_posterior_agrees_with_brms(name: str) -> None:
    data, formula, renamed = BRMS_MODELS[name]
    table = BRMS[(data, formula)]
    data_, spec = STUDIES[name]()
    tree = psm.fit(spec, data_, seed=SEED, progressbar=False)
    posterior = tree["posterior"]
    for row in table:
        label = renamed.get(row["par"], row["par"])
        if row["sec"] == "fixed":
            draws, tolerance = posterior["beta"].sel(term=label), BRMS_FIXED_TOLERANCE
        elif row["par"] == "sigma":
            draws, tolerance = posterior["sigma"], BRMS_SD_TOLERANCE
        elif row["par"].startswith("sd("):
            inner = row["par"][3:-1]
            draws, tolerance = posterior["sd_patient"].sel(patient_term=renamed.get(inner, inner)), BRMS_SD_TOLERANCE
        else:
            draws = posterior["corr_patient"].sel(patient_term="Intercept", patient_term_aux="time")
            tolerance = BRMS_SD_TOLERANCE
        assert abs(float(draws.mean()) - row["mean"]) < tolerance * row["sd"], row["par"]

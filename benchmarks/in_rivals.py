"""Bambi and pathmc, run by the interpreter of their own environment; the table and priors come as files."""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measures import cpu_seconds, quality, rates

CORES = 2


def bambi(options: dict[str, Any], frame: pd.DataFrame, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Fit independent random slopes at both levels; Bambi has no correlated ones. Sampled by nutpie."""
    import bambi as bmb

    slopes = [term for term in given["beta"] if term != "Intercept"]
    random = " + ".join(["1", *slopes])
    formula = f"symptoms ~ {' + '.join(slopes)} + ({random} | therapist) + ({random} | patient)"

    def scale(sd: float) -> Any:
        return bmb.Prior("Normal", mu=0, sigma=bmb.Prior("HalfNormal", sigma=sd))

    priors = {term: bmb.Prior("Normal", mu=mean, sigma=sd) for term, (mean, sd) in given["beta"].items()}
    priors["sigma"] = bmb.Prior("HalfNormal", sigma=given["sigma"]["symptoms"])
    for level, scales in given["sd"].items():
        for term, sd in scales.items():
            priors[f"{'1' if term == 'Intercept' else term}|{level}"] = scale(sd)
    frame = frame.assign(patient=frame["patient"].astype(str), therapist=frame["therapist"].astype(str))
    begin = time.perf_counter()
    model = bmb.Model(formula, frame, priors=priors, noncentered=True)
    model.build()
    tree, seconds = sampled(model.backend.model, options, begin)
    posterior = tree["posterior"]
    draws = {
        "beta": np.stack([posterior[term].values for term in given["beta"]], axis=-1),
        "sigma": posterior["sigma"].values[..., None],
    }
    for level, scales in given["sd"].items():
        names = [f"{'1' if term == 'Intercept' else term}|{level}" for term in scales]
        draws[f"sd_{level}"] = np.stack([posterior[f"{name}_sigma"].values for name in names], axis=-1)
        if level == "therapist":
            draws["u_therapist"] = np.stack([posterior[name].values for name in names], axis=-1)
    return draws, (tree, seconds)


def pathmc(options: dict[str, Any], frame: pd.DataFrame, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Fit the 1-1-1 model with patients' intercepts; pathmc has one grouping level and independent slopes."""
    import pathmc as pmc
    from pymc_extras.prior import Prior

    beta, equations = given["beta"], {"alliance": ["exposure"], "symptoms": ["alliance", "exposure"]}
    priors: dict[str, Any] = {}
    for response, predictors in equations.items():
        mean, sd = beta[f"{response}~Intercept"]
        priors[f"mu_alpha_{response}"] = Prior("Normal", mu=mean, sigma=sd)
        priors[f"sigma_alpha_{response}"] = Prior("HalfNormal", sigma=given["sd"]["patient"][f"{response}~Intercept"])
        priors[f"sigma_{response}"] = Prior("HalfNormal", sigma=given["sigma"][response])
        pairs = [beta[f"{response}~{predictor}"] for predictor in predictors]
        priors[f"beta_{response}"] = Prior(
            "Normal", mu=[pair[0] for pair in pairs], sigma=[pair[1] for pair in pairs], dims=f"{response}_predictors"
        )
    text = "\n".join(f"{response} ~ {' + '.join(predictors)}" for response, predictors in equations.items())
    begin = time.perf_counter()
    model = pmc.model(text, frame, panel={"unit": "patient", "time": "session"}, pooling="partial", priors=priors)
    tree, seconds = sampled(model.pymc_model, options, begin)
    posterior = tree["posterior"]

    def entry(label: str) -> np.ndarray:
        response, _, term = label.partition("~")
        if term == "Intercept":
            return posterior[f"mu_alpha_{response}"].values
        return posterior[f"beta_{response}"].values[..., equations[response].index(term)]

    draws = {
        "beta": np.stack([entry(label) for label in beta], axis=-1),
        "sigma": np.stack([posterior[f"sigma_{response}"].values for response in given["sigma"]], axis=-1),
        "sd_patient": np.stack(
            [posterior[f"sigma_alpha_{label.partition('~')[0]}"].values for label in given["sd"]["patient"]], axis=-1
        ),
    }
    return draws, (tree, seconds)


def sampled(model: Any, options: dict[str, Any], begin: float) -> tuple[Any, dict[str, float]]:
    """Compile the package's PyMC model for nutpie and sample it: the fastest way that both packages offer."""
    import nutpie

    compiled = nutpie.compile_pymc_model(model)
    compiled_at, cpu = time.perf_counter(), cpu_seconds()
    numbers = {name: options[name] for name in ("draws", "tune", "chains")}
    tree = nutpie.sample(
        compiled, **numbers, seed=options["sampler_seed"], cores=CORES, save_warmup=False, progress_bar=False
    )
    end = time.perf_counter()
    return tree, {
        "compile_seconds": compiled_at - begin,
        "sampling_seconds": end - compiled_at,
        "total_seconds": end - begin,
        "cpu_seconds": cpu_seconds() - cpu,
    }


def run(options: dict[str, Any]) -> dict[str, Any]:
    """Fit and summarise."""
    folder = Path(options["folder"])
    given = json.loads((folder / "problem.json").read_text(encoding="utf-8"))
    frame = pd.read_csv(folder / "table.csv")
    draws, (tree, seconds) = {"bambi": bambi, "pathmc": pathmc}[options["program"]](options, frame, given)
    stats = tree["sample_stats"]
    counted = {
        "divergences": int(stats["diverging"].sum()),
        "gradients_after_warmup": int(stats["n_steps"].sum()),
    }
    return rates(seconds | counted | quality(draws, given["labels"]))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(json.dumps(run(json.loads(sys.argv[1]))))

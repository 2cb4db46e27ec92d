"""Three and four levels, random slopes and AR(1) residuals with gaps, against nlme and lme4 on a simulated study.

scripts/make_inputs.py made the study, scripts/simulated.R the numbers; R is not needed here.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import linalg

import psymech as psm
from psymech.design import make_design
from psymech.gaussian.loglik import LOG_2PI, collapse, log_likelihood
from psymech.graph.crossing import make_crossing
from psymech.priors import choose_priors
from tests.golden.studies import HERE, published
from tests.oracles import Values, dense_marginal

FITS = published("simulated_r.json")
DEVIANCE_TOLERANCE = 1e-6  # twelve digits are stored, and R and the engine both evaluate a closed form
ESTIMATE_TOLERANCE = 1e-5  # of a standard error: what R's optimiser left of the gradient
SE_TOLERANCE = 1e-5  # relative

SLOPES = {"patient": ["time"], "therapist": ["time"]}
MODELS = {
    "ar1_intercepts_ML": {"random": {"patient": [], "therapist": []}, "residual": "ar1"},
    "ar1_intercepts_REML": {"random": {"patient": [], "therapist": []}, "residual": "ar1"},
    "ar1_slopes_ML": {"random": SLOPES, "residual": "ar1"},
    "slopes_ML": {"random": SLOPES},
    "slopes_REML": {"random": SLOPES},
    "four_levels_ML": {"random": {"patient": ["time"], "therapist": [], "clinic": []}},
}


@pytest.mark.parametrize("name", MODELS)
def test_likelihood_at_r_estimates(name: str) -> None:
    fit = FITS[name]
    clinic = "clinic" if "clinic" in fit["levels"] else None
    frame = pd.read_csv(HERE / "inputs" / "simulated.csv").sample(frac=1, random_state=1)
    data = psm.SessionData.from_frame(frame, clinic=clinic, time="t", ranges={"y": None, "x": None})
    spec = psm.growth("y", covariates=["x"], **MODELS[name])
    design = make_design(spec, data)
    assert design.terms == ("Intercept", "time", "x")
    assert np.unique(design.gap).size > 3

    covariances = []
    for level in design.levels:
        given = fit["levels"][level.level]
        covariance = np.diag(given["variances"])
        if given["covariance"] is not None:
            covariance[0, 1] = covariance[1, 0] = given["covariance"]
        covariances.append(covariance)
    roots = [linalg.sqrtm(c).real for c in covariances]
    beta, phi = np.array(fit["fixef"]), fit["phi"]
    crossing = make_crossing(design, choose_priors(spec, design))
    value = crossing.residual.evaluate([fit["sigma"]] if phi is None else [fit["sigma"], phi])
    found = log_likelihood(crossing.cross, value.coefs, roots, value.log_det, beta=beta)
    values = Values(beta, tuple(roots), (), np.array(fit["sigma"]), phi or 0.0, np.nan, np.zeros(0))
    assert abs(found - dense_marginal(design, values)) < DEVIANCE_TOLERANCE

    H, _ = collapse(crossing.cross, value.coefs, roots)
    information = H[:-1, :-1]
    if fit["method"] == "REML":
        found += 0.5 * (len(beta) * LOG_2PI - np.linalg.slogdet(information)[1])
    assert abs(-2 * found + 2 * fit["log_likelihood"]) < DEVIANCE_TOLERANCE
    se = np.sqrt(np.diag(np.linalg.inv(information)))
    estimate = np.linalg.solve(information, H[:-1, -1])
    np.testing.assert_allclose((estimate - beta) / se, 0, atol=ESTIMATE_TOLERANCE)
    np.testing.assert_allclose(se, fit["se"], rtol=SE_TOLERANCE)

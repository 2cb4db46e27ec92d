"""The likelihood at published estimates equals the published likelihood: no sampling, nothing to tune.

Random effects are integrated out exactly at fixed variances; the restricted likelihood integrates fixed effects too.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from psymech.design import Design, make_design
from psymech.gaussian.loglik import LOG_2PI, collapse, log_likelihood
from psymech.graph.crossing import make_crossing
from psymech.priors import choose_priors
from tests.golden.studies import STUDIES, published, read
from tests.oracles import Values, dense_marginal

FITS = published()
R_FITS = published("statsmodels_r.json")["values"]

# -2 log L is flat at its maximum: six printed digits of the estimates and of log L itself leave less than this.
DEVIANCE_TOLERANCE = 2e-5
# Published log likelihoods with three decimals, and variances with four digits.
LOOSE_DEVIANCE = {name: 1.1e-3 for name in FITS if name.startswith("dietox")} | {"sleepstudy_RS_REML": 5e-5}
ESTIMATE_TOLERANCE = 2e-5  # of a standard error: the digits printed
SE_TOLERANCE = 2e-5  # relative: the digits printed
LOOSE_SE = {"sleepstudy_RS_REML": 2e-4}  # four digits


def factors(design: Design, fit: dict) -> list[NDArray[np.float64]]:
    """Covariance factors at the published variances, terms in the design's order."""
    out = []
    for level in design.levels:
        given = fit["levels"][level.level]
        assert tuple(given["terms"]) == level.terms
        covariance = np.diag(given["variances"])
        if len(level.terms) == 2:
            covariance[0, 1] = covariance[1, 0] = given["covariance"]
        out.append(np.linalg.cholesky(covariance) if np.all(np.diag(covariance) > 0) else np.sqrt(covariance))
    return out


@pytest.mark.parametrize("name", [n for n in FITS if n != "penicillin_ML"])
def test_likelihood_and_fixed_effects_at_published_variances(name: str) -> None:
    fit = FITS[name]
    data, spec = STUDIES[name]()
    design = make_design(spec, data)
    crossing = make_crossing(design, choose_priors(spec, design))
    value = crossing.residual.evaluate([np.sqrt(fit["sigma2"])])
    roots = factors(design, fit)
    beta = np.array([fit["fixef"][label] for label in design.terms])
    found = log_likelihood(crossing.cross, value.coefs, roots, value.log_det, beta=beta)

    H, _ = collapse(crossing.cross, value.coefs, roots)
    information = H[:-1, :-1]
    if fit["method"] == "REML":
        found += 0.5 * (len(beta) * LOG_2PI - np.linalg.slogdet(information)[1])
    tolerance = LOOSE_DEVIANCE.get(name, DEVIANCE_TOLERANCE)
    assert abs(-2 * found + 2 * fit["log_likelihood"]) < tolerance

    # The best fixed effects at these variances, and their standard errors, are the published ones.
    estimate = np.linalg.solve(information, H[:-1, -1])
    se = np.sqrt(np.diag(np.linalg.inv(information)))
    published_se = np.array([fit["se"][label] for label in design.terms])
    np.testing.assert_allclose((estimate - beta) / se, 0, atol=ESTIMATE_TOLERANCE)
    np.testing.assert_allclose(se, published_se, rtol=LOOSE_SE.get(name, SE_TOLERANCE))


def test_crossed_levels_at_published_variances() -> None:
    fit = FITS["penicillin_ML"]
    data, spec = STUDIES["penicillin_ML"]()
    design = make_design(spec, data)
    assert not design.nested
    beta = np.array([fit["fixef"]["Intercept"]])
    values = Values(beta, tuple(factors(design, fit)), (), np.sqrt(fit["sigma2"]), 0.0, np.nan, np.zeros(0))
    assert abs(-2 * dense_marginal(design, values) + 2 * fit["log_likelihood"]) < DEVIANCE_TOLERANCE


R_CASES = [key.removeprefix("loglike_") for key in R_FITS if key.startswith("loglike_")]
R_TOLERANCE = 2e-3  # log likelihoods are printed to four decimals, covariances to seven digits; some SDs are near zero
R_ESTIMATE_TOLERANCE = 1e-3  # of a standard error


@pytest.mark.parametrize("case", R_CASES)
def test_engine_against_r_on_small_designs(case: str) -> None:
    """36 fits of R's lme4 that have no fixed intercept, so the engine is asked directly."""
    from psymech.gaussian.cross import cross_products
    from psymech.gaussian.residual import iid

    method, _, number = case.split("_")
    table = read(f"statsmodels/lme{int(number):02d}.csv").sort_values("groups")
    fixed = [c for c in table.columns if c.startswith("exog_fe")]
    random = [c for c in table.columns if c.startswith("exog_re")]
    unit = np.unique(table["groups"], return_inverse=True)[1]
    width = len(fixed)
    cross = cross_products(
        table[fixed + random].to_numpy(),
        table["endog"].to_numpy(),
        unit,
        [],
        [np.arange(width, width + len(random))],
        np.arange(width),
    )
    covariance = np.atleast_2d(R_FITS[f"cov_re_{case}"])
    root = linalg.sqrtm(covariance).real
    value = iid(len(table)).evaluate([np.sqrt(R_FITS[f"scale_{case}"][0])])
    beta = np.array(R_FITS[f"coef_{case}"])
    found = log_likelihood(cross, value.coefs, [root], value.log_det, beta=beta)
    H, _ = collapse(cross, value.coefs, [root])
    top = H[np.ix_([*range(width), -1], [*range(width), -1])] if H.shape[0] != width + 1 else H
    information = top[:-1, :-1]
    if method == "reml":
        found += 0.5 * (width * LOG_2PI - np.linalg.slogdet(information)[1])
    assert abs(found - R_FITS[f"loglike_{case}"][0]) < R_TOLERANCE
    estimate = np.linalg.solve(information, top[:-1, -1])
    se = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose((estimate - beta) / se, 0, atol=R_ESTIMATE_TOLERANCE)
    np.testing.assert_allclose(
        np.linalg.inv(information), np.atleast_2d(R_FITS[f"vcov_{case}"]), rtol=R_TOLERANCE, atol=1e-7
    )


def test_every_published_fit_has_its_study() -> None:
    assert set(FITS) == set(STUDIES)
    assert len(R_CASES) == 36

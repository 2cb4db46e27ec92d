"""Outcomes drawn before any data are seen: one call for every family, with the moments that the priors state."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import clone_replace
from scipy import stats

import psymech as psm
from psymech.errors import SpecError
from psymech.inference.predictive import prior_predictive
from psymech.spec.model import Family
from tests.graph.explicit_designs import MODE
from tests.inference.studies import FREE, small_data, small_frame

DRAWS = 4000
STANDARD_ERRORS = 4.5  # of a Monte Carlo mean; seeds are fixed, so the test is the same every time
SD_TOLERANCE = 0.05  # relative: the SD of 4000 normal draws has a standard error of 1.1%


def built_model(family: Family = "gaussian", **keywords: object) -> psm.BuiltModel:
    spec = psm.growth("y", random={"patient": ["time"]}, family=family, **keywords)  # pyright: ignore[reportArgumentType]
    return psm.build_model(spec, small_data(1, family=family), engine="explicit")


@pytest.mark.parametrize(
    ("family", "residual"),
    [("gaussian", "iid"), ("gaussian", "ar1"), ("student", "iid"), ("bernoulli", "iid"), ("ordinal", "iid")],
)
def test_every_family_draws_outcomes(family: Family, residual: str) -> None:
    built = built_model(family, residual=residual)
    tree = prior_predictive(built, draws=200, seed=3)
    y = tree["prior_predictive"]["y"]
    assert y.shape == (1, 200, built.design.n_obs)
    assert np.isfinite(y.values).all()
    if family == "bernoulli":
        assert set(np.unique(y)) == {0.0, 1.0}
    if family == "ordinal":
        assert set(np.unique(y)) == set(range(len(built.design.categories)))
    check = tree["prior_check"]
    assert (np.diff(check["predicted"].values, axis=1) >= 0).all()
    np.testing.assert_allclose(check["observed"].sel(statistic="mean"), built.design.y.mean())
    np.testing.assert_array_equal(tree["observed_data"]["y"], built.design.y)
    # PyMC's own call works as well.
    plain = pm.sample_prior_predictive(5, model=built.model, random_seed=1, compile_kwargs={"mode": MODE})
    assert plain["prior_predictive"]["y"].shape == (1, 5, built.design.n_obs)


def test_gaussian_outcomes_have_the_moments_of_the_priors() -> None:
    wide = {
        "beta": psm.Normal(2.0, 3.0),
        "sd_patient": psm.HalfNormal(1.0),
        "sd_therapist": psm.HalfNormal(0.5),
        "sigma": psm.HalfNormal(2.0),
    }
    built = built_model(priors=wide)
    y = prior_predictive(built, draws=DRAWS, seed=5)["prior_predictive"]["y"].values[0]
    X, design = built.design.X, built.design
    centred = X - [0.0, X[:, 1].mean()]
    z = design.levels[0].Z
    # E[sd^2] = scale^2 for a half-normal, and correlations have mean zero.
    variance = 9 * (centred**2).sum(axis=1) + (z**2).sum(axis=1) + 0.25 + 4
    mean = 2 * centred.sum(axis=1)
    assert (np.abs(y.mean(axis=0) - mean) < STANDARD_ERRORS * np.sqrt(variance / DRAWS)).all()
    np.testing.assert_allclose(y.std(axis=0), np.sqrt(variance), rtol=SD_TOLERANCE)


def test_ar1_outcomes_correlate_as_stated_also_over_gaps_and_for_crossed_patients() -> None:
    frame = small_frame(4)
    frame["therapist"] = [f"T{k}" for k in np.random.default_rng(4).integers(0, 6, size=len(frame))]
    data = psm.SessionData.from_frame(frame, patient_ids="crossed", ranges=FREE)
    built = psm.build_model(psm.growth("y", random={"patient": []}, residual="ar1"), data, engine="explicit")
    design = built.design
    assert np.any(design.previous > np.arange(design.n_obs))
    phi, rows = -0.8, np.flatnonzero(design.previous >= 0)
    known = {"phi_half": (phi + 1) / 2, "sigma": 1.0, "fixed": np.zeros(2)}
    known |= {f"z_{level.level}": np.zeros((level.n_units, 1)) for level in design.levels}
    replace = {built.model[name]: pt.constant(np.asarray(value, dtype=float)) for name, value in known.items()}
    y = pm.draw(clone_replace(built.model["y"], replace), draws=DRAWS, random_seed=2, mode=MODE)
    centred = y - y.mean(axis=0)
    for row in rows:
        before, gap = design.previous[row], int(design.gap[row])
        found = (centred[:, row] * centred[:, before]).mean()
        assert abs(found - phi**gap) < STANDARD_ERRORS / np.sqrt(DRAWS) * np.sqrt(2), (row, gap)
    np.testing.assert_allclose(y.std(axis=0), 1.0, rtol=SD_TOLERANCE)


def test_ordinal_thresholds_are_drawn_in_order() -> None:
    built = built_model("ordinal")
    assert built.priors.cutpoints is not None
    draws = pm.draw(built.model["cutpoints"], draws=DRAWS, random_seed=1, mode=MODE)
    assert (np.diff(draws, axis=1) > 0).all()
    everything = stats.norm(built.priors.cutpoints.mean, built.priors.cutpoints.sd)
    # One of the ordered thresholds, picked at random, is a plain draw from the prior.
    picked = draws[np.arange(DRAWS), np.random.default_rng(1).integers(draws.shape[1], size=DRAWS)]
    assert stats.kstest(picked, everything.cdf).pvalue > 1e-3


def test_the_same_seed_gives_the_same_outcomes() -> None:
    built = built_model()
    first, again, other = (prior_predictive(built, draws=5, seed=s)["prior_predictive"]["y"].values for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("draws", [0, -1, 2.5, True])
def test_the_number_of_draws_is_checked(draws: object) -> None:
    with pytest.raises(SpecError, match="draws: expected a whole number above zero"):
        prior_predictive(built_model(), draws=draws)  # pyright: ignore[reportArgumentType]


def test_residuals_of_one_session_correlate_where_the_model_says_so() -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "patient": np.repeat(np.arange(30), 2),
            "session": np.tile([1, 2], 30),
            "a_post": np.repeat(rng.normal(size=30), 2),
            "b_post": np.repeat(rng.normal(size=30), 2),
            "therapist": np.repeat(np.arange(6), 10),
            "exposure": rng.normal(size=60),
        }
    )
    scores = frame.drop_duplicates("patient")[["patient", "a_post", "b_post"]]
    data = psm.SessionData.from_frame(frame[["patient", "session", "therapist", "exposure"]], patients=scores)
    priors = {"corr_residual": psm.LKJ(1.0), "sd_therapist": psm.HalfNormal(1e-3), "beta": psm.Normal(0.0, 1e-3)}
    built = psm.build_model(
        psm.outcomes(["a_post", "b_post"], techniques=["exposure"], baseline=False, priors=priors), data
    )
    assert built.design.residual == "unstructured"
    y = psm.prior_predictive(built, draws=200, seed=1)["prior_predictive"]["y"].values[0]
    first, second = y[:, built.design.response == 0], y[:, built.design.response == 1]
    spread = np.std([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])
    assert spread > 0.4  # uniform correlations have SD 0.58; unrelated columns of 30 would show 0.19

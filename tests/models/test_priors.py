"""Default priors, overrides by name, and their description against direct draws from the model."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import psymech as psm
from psymech.design import make_design
from psymech.errors import SpecError
from psymech.graph.explicit import explicit_model
from psymech.priors import FEW_THERAPISTS, choose_priors
from psymech.spec.model import Family
from tests.graph.explicit_designs import MODE
from tests.inference.studies import small_data

DRAWS = 4000
QUANTILE_TOLERANCE = 0.02  # in probability: 4 standard errors of a 5% level, both sides from 4000 draws
SHARE_TOLERANCE = 0.03  # of a share's quantile, both sides from 4000 draws

SPEC = psm.growth("y", covariates=["x"], random={"patient": ["time"], "therapist": []})


def test_defaults_follow_the_outcome_and_the_columns() -> None:
    design = make_design(SPEC, small_data(1))
    chosen = choose_priors(SPEC, design)
    s, s_time, s_x = design.y.std(), design.X[:, 1].std(), design.X[:, 2].std()
    assert chosen.beta == (
        psm.Normal(design.y.mean(), 2.5 * s),
        psm.Normal(0.0, 2.5 * s / s_time),
        psm.Normal(0.0, 2.5 * s / s_x),
    )
    assert chosen.sd["patient"] == (psm.HalfNormal(s), psm.HalfNormal(s / (2 * s_time)))
    assert chosen.sd["therapist"] == (psm.HalfNormal(s / 2),)
    assert dict(chosen.corr) == {"patient": psm.LKJ(2.0)}
    assert chosen.sigma == (psm.HalfNormal(s),)
    assert (chosen.phi, chosen.nu, chosen.cutpoints) == (None, None, None)


@pytest.mark.parametrize("family", ["bernoulli", "ordinal"])
def test_logit_models_have_a_named_scale(family: Family) -> None:
    spec = psm.growth("y", family=family, random={"patient": [], "therapist": []})
    data = small_data(1, family=family)
    chosen = choose_priors(spec, make_design(spec, data))
    assert chosen.sd["patient"] == (psm.HalfNormal(1.5),)
    assert chosen.sd["therapist"] == (psm.HalfNormal(0.75),)
    assert chosen.sigma == ()
    shown = psm.describe_priors(spec, data)
    assert set(shown.table["unit"].str.split(",").str[0]) <= {"logit", "logit per unit"}
    # With SD 0 everywhere the residual share would be 1: its variance is that of the logistic distribution.
    small = psm.growth("y", family=family, random={"patient": []}, priors={"sd_patient": psm.HalfNormal(1.0)})
    two_level = psm.describe_priors(small, small_data(1, family=family, therapist=False)).shares.set_index("level")
    median = stats.halfnorm.ppf(0.5) ** 2
    assert two_level.loc["patient", "median"] == pytest.approx(median / (median + np.pi**2 / 3), abs=SHARE_TOLERANCE)


def test_overrides_reach_the_priors_by_name() -> None:
    given = {
        "beta": psm.StudentT(4, 0, 2),
        "beta[time]": psm.Normal(-1, 0.5),
        "sd_patient": psm.Exponential(2),
        "sd_patient[time]": psm.HalfStudentT(3, 1),
        "sd_therapist[Intercept]": psm.HalfNormal(9),
        "corr_patient": psm.LKJ(5),
        "sigma": psm.Exponential(1),
        "phi": psm.SymmetricBeta(3),
    }
    spec = psm.growth("y", random={"patient": ["time"]}, residual="ar1", priors=given)
    chosen = choose_priors(spec, make_design(spec, small_data(1)))
    assert chosen.beta == (psm.StudentT(4, 0, 2), psm.Normal(-1, 0.5))
    assert chosen.sd["patient"] == (psm.Exponential(2), psm.HalfStudentT(3, 1))
    assert chosen.sd["therapist"] == (psm.HalfNormal(9),)
    assert chosen.corr["patient"] == psm.LKJ(5)
    assert chosen.sigma == (psm.Exponential(1),)
    assert chosen.phi == psm.SymmetricBeta(3)


@pytest.mark.parametrize(
    ("key", "prior", "message"),
    [
        ("beta[dose]", psm.Normal(), r"'beta\[dose\]' names no parameter of this model; beta has: Intercept, time, x"),
        ("sd_clinic", psm.HalfNormal(), "'sd_clinic' belongs to a level that this model does not have"),
        ("sd_therapist[time]", psm.HalfNormal(), "sd_therapist has: Intercept"),
    ],
)
def test_overrides_that_name_nothing_are_refused(key: str, prior, message: str) -> None:
    spec = psm.growth("y", covariates=["x"], priors={key: prior})
    data = small_data(1)
    with pytest.raises(SpecError, match=message):
        choose_priors(spec, make_design(spec, data))


def test_described_intervals_are_those_of_draws_from_the_model() -> None:
    data = small_data(1)
    spec = psm.growth(
        "y",
        covariates=["x"],
        random={"patient": ["time"], "therapist": []},
        residual="ar1",
        priors={
            "sd_patient[time]": psm.Exponential(0.3),
            "beta[x]": psm.StudentT(4, 1, 2),
            "sigma": psm.HalfStudentT(4, 1),
        },
    )
    design = make_design(spec, data)
    model = explicit_model(design, choose_priors(spec, design))
    names = ["beta", "sd_patient", "sd_therapist", "sigma", "phi"]
    drawn = dict(zip(names, pm.draw([model[n] for n in names], draws=DRAWS, random_seed=3, mode=MODE), strict=True))
    at_average = drawn["beta"][:, 0] + drawn["beta"][:, 1:] @ design.X[:, 1:].mean(axis=0)
    by_name = {
        "beta[Intercept]": at_average,
        "beta[time]": drawn["beta"][:, 1],
        "beta[x]": drawn["beta"][:, 2],
        "sd_patient[Intercept]": drawn["sd_patient"][:, 0],
        "sd_patient[time]": drawn["sd_patient"][:, 1],
        "sd_therapist[Intercept]": drawn["sd_therapist"][:, 0],
        "sigma": drawn["sigma"],
        "phi": drawn["phi"],
    }
    shown = psm.describe_priors(spec, data, seed=1)
    table = shown.table.set_index("parameter")
    assert set(table.index) == {*by_name, "corr_patient"}
    for name, draws in by_name.items():
        low, high = table.loc[name, ["low", "high"]].astype(float)
        assert (draws < low).mean() == pytest.approx(0.05, abs=QUANTILE_TOLERANCE), name
        assert (draws > high).mean() == pytest.approx(0.05, abs=QUANTILE_TOLERANCE), name
    assert "Normal(mean=" in table.loc["beta[time]", "prior"]
    assert table.loc["beta[time]", "unit"] == "outcome units per unit"


def test_shares_of_variance_are_those_of_the_model() -> None:
    data = small_data(2)
    design = make_design(SPEC, data)
    model = explicit_model(design, choose_priors(SPEC, design))
    names = ["sd_patient", "corr_patient", "sd_therapist", "sigma"]
    sd, corr, therapist, sigma = pm.draw([model[n] for n in names], draws=DRAWS, random_seed=3, mode=MODE)
    # A session's variance is z' Omega z; correlations have prior mean zero and are left out of its expectation.
    z = design.levels[0].Z
    patient = (sd**2) @ (z**2).mean(axis=0)
    total = patient + therapist[:, 0] ** 2 + sigma**2
    expected = {"patient": patient / total, "therapist": therapist[:, 0] ** 2 / total, "residual": sigma**2 / total}
    shares = psm.describe_priors(SPEC, data, seed=1).shares.set_index("level")
    assert list(shares.index) == ["patient", "therapist", "residual"]
    for level, draws in expected.items():
        found = shares.loc[level, ["low", "median", "high"]].astype(float)
        np.testing.assert_allclose(found, np.quantile(draws, [0.05, 0.5, 0.95]), atol=SHARE_TOLERANCE)
    assert np.abs(corr[:, 0, 1].mean()) < 4.5 / np.sqrt(DRAWS)


def test_few_therapists_are_said_to_leave_the_answer_to_the_prior() -> None:
    shown = psm.describe_priors(SPEC, small_data(1))
    (note,) = shown.notes
    assert note.startswith("There are only 6 therapists: the prior on sd_therapist decides much of the answer")
    assert note in str(shown)
    assert "Prior shares of variance" in str(shown)
    rows = [(k, f"{k}-{i}", t, float(k + i * t)) for k in range(FEW_THERAPISTS) for i in range(2) for t in (1, 2, 3)]
    many = pd.DataFrame(rows, columns=["therapist", "patient", "session", "y"])
    assert psm.describe_priors(psm.growth("y"), psm.SessionData.from_frame(many, ranges={"y": None})).notes == ()


def test_two_level_data_have_no_therapist_prior() -> None:
    shown = psm.describe_priors(psm.growth("y"), small_data(1, therapist=False))
    assert not shown.table["parameter"].str.contains("therapist").any()
    assert list(shown.shares["level"]) == ["patient", "residual"]
    assert shown.notes == ()


def test_shares_are_those_of_each_response_whatever_its_scale() -> None:
    """An outcome in thousandths of its unit leaves the other's shares, and its own, as they were."""
    rng = np.random.default_rng(0)
    rows = [(k, f"{k}-{i}", t) for k in range(6) for i in range(4) for t in range(1, 6)]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"]).assign(
        **{name: rng.normal(size=len(rows)) for name in ("x", "m", "y")}
    )
    spec = psm.mediation("y", treatment="x", mediators="m", time=None, random={"patient": ["b"]})

    def shares(table: pd.DataFrame) -> pd.DataFrame:
        data = psm.SessionData.from_frame(table, ranges=dict.fromkeys(("x", "m", "y")))
        return psm.describe_priors(spec, data).shares.set_index(["response", "level"])

    small, large = shares(frame), shares(frame.assign(y=frame["y"] * 1000))
    assert small.index.tolist() == [(r, v) for r in ("m", "y") for v in ("patient", "therapist", "residual")]
    np.testing.assert_allclose(large, small)


def test_prior_share_of_the_residual_is_that_of_the_rows_and_of_the_family() -> None:
    data = small_data(2)
    few = np.isin(data.sessions["patient"], data.ids["patient"][:2])
    data = psm.SessionData.from_frame(data.sessions.assign(few=few.astype(int)), ranges={"y": None})
    share = few.mean()
    wide = {"sigma[0]": psm.HalfNormal(1.0), "sigma[1]": psm.HalfNormal(10.0)}
    spec = psm.growth("y", residual_by="few", priors=wide, random={"patient": [], "therapist": []})
    assert 0 < share < 0.3
    rng = np.random.default_rng(1)
    sd, scale = np.abs(rng.normal(size=(4, 100_000))), data.values("y").std()
    residual = (1 - share) * sd[0] ** 2 + share * (10 * sd[1]) ** 2
    random = (scale * sd[2]) ** 2 + (scale / 2 * sd[3]) ** 2
    found = psm.describe_priors(spec, data).shares.set_index("level").loc["residual", ["low", "median", "high"]]
    expected = np.quantile(residual / (residual + random), [0.05, 0.5, 0.95])
    np.testing.assert_allclose(found.astype(float), expected, atol=SHARE_TOLERANCE)
    nu = rng.gamma(2.0, 10.0, 100_000)
    tails = np.divide(nu, nu - 2, out=np.full_like(nu, np.nan), where=nu > 2)
    residual = (scale * sd[0]) ** 2 * tails
    spec = psm.growth("y", family="student", random={"patient": [], "therapist": []})
    found = psm.describe_priors(spec, data).shares.set_index("level")
    expected = np.nanquantile(residual / (residual + random), [0.05, 0.5, 0.95])
    np.testing.assert_allclose(
        found.loc["residual", ["low", "median", "high"]].astype(float), expected, atol=SHARE_TOLERANCE
    )

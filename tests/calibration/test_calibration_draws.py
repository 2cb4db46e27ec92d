"""Parameters and responses are drawn as the priors and the model say; test quantities are what they are called."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import psymech as psm
from psymech import names
from psymech.calibration.density import log_conditional, log_marginal
from psymech.calibration.parameters import draw_parameters
from psymech.calibration.quantities import make_plan, true_vector
from psymech.calibration.responses import causal_order, draw_residuals, draw_responses
from psymech.graph.build import BuiltModel, build_model
from psymech.simulation.mediation import simulate_mediation
from tests.oracles import Values as OracleValues
from tests.oracles import dense_marginal, row_log_density

DRAWS = 4000
SMALL = 1e-4  # p-value below which a distribution is taken to differ; seeds are fixed


def built_of(spec: psm.ModelSpec, **sizes: int) -> BuiltModel:
    data = psm.simulate(
        spec, sizes=psm.Sizes(**({"therapists": 5, "patients": 3, "sessions": 6} | sizes)), seed=1
    ).data()
    return build_model(spec, data, "explicit")


def batch(values: dict) -> dict:
    return {name: np.asarray(v, dtype=float)[None] for name, v in values.items()}


def test_parameters_have_their_priors():
    priors = {"sd_patient": psm.Exponential(2.0), "sigma": psm.HalfStudentT(4, 1.5), "corr_patient": psm.LKJ(3.0)}
    built = built_of(psm.growth("y", shape="quadratic", random={"patient": ["time"]}, residual="ar1", priors=priors))
    rng = np.random.default_rng(1)
    drawn = [draw_parameters(built.design, built.priors, rng) for _ in range(DRAWS)]
    sd = np.array([d["sd_patient"] for d in drawn])
    assert stats.kstest(sd[:, 1], stats.expon(scale=2.0).cdf).pvalue > SMALL
    assert stats.kstest([d["sigma"] for d in drawn], lambda x: 2 * stats.t(4, scale=1.5).cdf(x) - 1).pvalue > SMALL
    assert stats.kstest([(d["phi"] + 1) / 2 for d in drawn], stats.beta(2, 2).cdf).pvalue > SMALL
    # Every correlation of an LKJ(eta) matrix of q variables is 2 Beta(a, a) - 1 with a = eta + q / 2 - 1.
    corr = np.array([d["corr_patient"] for d in drawn])
    a = 3.0 + 3 / 2 - 1
    for i, j in ((1, 0), (2, 0), (2, 1)):
        assert stats.kstest((corr[:, i, j] + 1) / 2, stats.beta(a, a).cdf).pvalue > SMALL
    # The intercept's prior is about the average row.
    X = built.design.X.mean(axis=0)
    level = np.array([d["beta"] @ X for d in drawn])
    prior = built.priors.beta[0]
    assert stats.kstest(level, stats.norm(prior.mean, prior.sd).cdf).pvalue > SMALL
    # Effects have the covariance of their draw: the squared Mahalanobis distance is chi-squared.
    d2 = [
        float(u @ np.linalg.solve(d["corr_patient"] * np.outer(d["sd_patient"], d["sd_patient"]), u))
        for d in drawn
        for u in d["u_patient"][:1]
    ]
    assert stats.kstest(d2, stats.chi2(3).cdf).pvalue > SMALL


def test_true_values_are_taken_as_given_and_others_refused():
    built = built_of(psm.growth("y", random={"patient": ["time"]}))
    truth = {"beta": 1.0, "beta[time]": -2.0, "sd_patient": 0.5, "sd_therapist": 0.0, "corr_patient": 0.3, "sigma": 2.0}
    found = draw_parameters(built.design, built.priors, np.random.default_rng(0), truth=truth)
    assert found["beta"].tolist() == [1.0, -2.0]
    assert found["corr_patient"][0, 1] == 0.3
    assert not found["u_therapist"].any()
    for key, value, words in (
        ("sd_clinic", 1.0, "names no parameter"),
        ("beta[mood]", 1.0, "names no term"),
        ("sigma", -1.0, "from 0 on"),
        ("corr_patient", 1.5, "no correlation matrix"),
    ):
        with pytest.raises(psm.SpecError, match=words):
            draw_parameters(built.design, built.priors, np.random.default_rng(0), truth={key: value})


def test_residuals_remember_across_gaps():
    built = built_of(psm.growth("y", residual="ar1"), patients=2, sessions=7)
    session = built.design.session
    design = replace(built.design, session=np.where(session > 3, session + 2, session))
    values = {names.PHI: np.array(-0.7), names.SIGMA: np.array(2.0)}
    rng = np.random.default_rng(2)
    drawn = np.array([draw_residuals(design, values, rng) for _ in range(DRAWS)])
    patient = design.levels[0].code
    apart = np.abs(np.subtract.outer(design.session, design.session)).astype(int)
    expected = 4.0 * np.where(patient[:, None] == patient, (-0.7) ** apart, 0.0)
    error = 4.0 * np.sqrt(2 / DRAWS)  # of a variance; covariances have less
    assert np.abs(np.cov(drawn.T) - expected).max() < 5 * error


def test_responses_of_every_family_have_their_log_density():
    """Log densities against SciPy's, at drawn parameters and responses."""
    for family, residual in (("gaussian", "iid"), ("gaussian", "ar1"), ("student", "iid"), ("ordinal", "iid")):
        built = built_of(psm.growth("y", random={"patient": ["time"]}, family=family, residual=residual))
        rng = np.random.default_rng(3)
        for _ in range(3):
            values = draw_parameters(built.design, built.priors, rng)
            design, _ = draw_responses(built.spec, psm.load_example("process_study"), built.design, values, rng)
            eta = design.X @ values["beta"]
            for level in design.levels:
                eta = eta + (level.Z * values[names.effect(level.level)][level.code]).sum(axis=1)
            sigma = values.get("sigma", np.array(np.nan))
            phi, nu, cut = float(values.get("phi", 0.0)), float(values.get("nu", np.nan)), values.get("cutpoints")
            with np.errstate(divide="ignore"):
                right = row_log_density(design, eta, sigma=sigma, phi=phi, nu=nu, cut=cut)
            found = float(log_conditional(design, batch(values))[0])
            assert found == pytest.approx(right, rel=1e-8) or (np.isinf(right) and np.isinf(found))
            if family == "gaussian":
                factors = tuple(
                    np.linalg.cholesky(values[names.corr(lv.level)]) * values[names.sd(lv.level)][:, None]
                    for lv in design.levels
                )
                oracle = OracleValues(values["beta"], factors, (), sigma, phi, nu, np.zeros(0))
                found = float(log_marginal(design, batch(values))[0])
                assert found == pytest.approx(dense_marginal(design, oracle), rel=1e-8)


def test_correlated_residuals_of_several_outcomes():
    data = psm.load_example("process_study")
    built = build_model(psm.outcomes(["coping", "resources"], common_factors=["alliance"]), data)
    design = built.design
    values = draw_parameters(design, built.priors, np.random.default_rng(4))
    rng = np.random.default_rng(5)
    drawn = np.array([draw_residuals(design, values, rng) for _ in range(DRAWS)])
    rows = np.flatnonzero(design.row == design.row[np.argmax(np.bincount(design.row)[design.row])])
    sd = values["sigma"][design.response[rows]]
    expected = values["corr_residual"][np.ix_(design.response[rows], design.response[rows])] * np.outer(sd, sd)
    found = np.cov(drawn[:, rows].T)
    assert rows.size == 2
    assert np.abs(found - expected).max() < 6 * expected.max() * np.sqrt(2 / DRAWS)
    # The rows given all effects are normal with the residuals' covariance, session by session.
    new, _ = draw_responses(built.spec, data, design, values, rng)
    eta = new.X @ values["beta"] + (new.levels[0].Z * values["u_therapist"][new.levels[0].code]).sum(axis=1)
    total = 0.0
    for row in np.unique(new.row):
        mine = np.flatnonzero(new.row == row)
        sd = values["sigma"][new.response[mine]]
        V = values["corr_residual"][np.ix_(new.response[mine], new.response[mine])] * np.outer(sd, sd)
        total += stats.multivariate_normal(eta[mine], V).logpdf(new.y[mine])
    assert float(log_conditional(new, batch(values))[0]) == pytest.approx(total, rel=1e-9)


def test_a_mediator_is_drawn_before_the_outcome_it_predicts():
    data = simulate_mediation(therapists=5, patients=3, sessions=6, seed=1).data
    spec = psm.mediation("y", treatment="x", mediators="m", random={"patient": ("a", "b")}, lag=1, time=None)
    built = build_model(spec, data)
    assert [built.design.responses[r] for r in causal_order(built.design)] == ["m", "y"]
    rng = np.random.default_rng(6)
    values = draw_parameters(built.design, built.priors, rng)
    design, table = draw_responses(built.spec, data, built.design, values, rng)
    m = table.values("m")
    assert not np.allclose(m, data.values("m"))
    code = table.codes["patient"]
    within = m - (np.bincount(code, m) / np.bincount(code))[code]
    rows = np.flatnonzero(design.response == design.responses.index("y"))
    before = {key: i for i, key in enumerate(zip(code, table.session, strict=True))}
    lagged = [within[before[code[row], table.session[row] - 1]] for row in design.row[rows]]
    np.testing.assert_allclose(design.X[rows, design.terms.index("y~m.within")], lagged, atol=1e-10)
    level = design.levels[0]
    np.testing.assert_allclose(level.Z[rows, level.terms.index("y~m.within")], lagged, atol=1e-10)
    plan = make_plan(built.spec, design, effects=1)
    truth = dict(zip(plan.entries, true_vector(plan, built.spec, design, values), strict=True))
    beta = dict(zip(design.terms, values["beta"], strict=True))
    i, j = (level.terms.index(t) for t in ("m~x.within", "y~m.within"))
    covariance = values["corr_patient"][i, j] * values["sd_patient"][i] * values["sd_patient"][j]
    assert truth["indirect[m, within]"] == pytest.approx(beta["m~x.within"] * beta["y~m.within"] + covariance)


def test_correlations_that_the_model_fixes_at_zero_are_zero():
    data = simulate_mediation(therapists=5, patients=3, sessions=6, seed=1).data
    built = build_model(psm.mediation("y", treatment="x", mediators="m", time=None), data)
    zero = built.design.levels[0].zero
    assert zero is not None and zero.any()
    rng = np.random.default_rng(7)
    for _ in range(20):
        corr = draw_parameters(built.design, built.priors, rng)["corr_patient"]
        assert np.abs(corr[zero]).max() < 1e-15
        assert np.linalg.eigvalsh(corr).min() > 0

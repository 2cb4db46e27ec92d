import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

from psymech.errors import SpecError
from psymech.posterior.ranks import compare_therapists, n_top, rank_therapists
from psymech.posterior.reliability import caseload_for, minimum_caseload, reliability
from psymech.posterior.therapists import summarize_therapists, therapist_effects
from tests.posterior.fitted_trees import Truth, make_tree, two_response_tree

EXACT = 1e-12  # the same sums in another order
SECONDS_ALLOWED = 2.0  # issue 5: 500 therapists, 4,000 draws
INTERCEPTS = Truth(sd={"patient": {"Intercept": 4.0}, "therapist": {"Intercept": 2.0}}, corr={})
COLUMNS = [
    "mean",
    "sd",
    "eti89_lb",
    "eti89_ub",
    "p_above",
    "expected_rank",
    "rank_low",
    "rank_high",
    "reliability",
    "n_patients",
    "n_sessions",
    "raw_mean",
]


def test_effects_are_the_named_column(tree: xr.DataTree) -> None:
    drawn = tree["posterior"]["u_therapist"].values
    found = therapist_effects(tree, term="time")
    assert found.dims == ("chain", "draw", "therapist")
    np.testing.assert_array_equal(found.values, drawn[..., 1])
    patients = therapist_effects(tree, level="patient")
    np.testing.assert_array_equal(patients.values, tree["posterior"]["u_patient"].values[..., 0])


def test_unknown_term_lists_the_terms(tree: xr.DataTree) -> None:
    with pytest.raises(SpecError, match=r"'alliance\.within' does not vary over therapists.*Intercept, time"):
        therapist_effects(tree, term="alliance.within")
    with pytest.raises(SpecError, match="'gad7'"):
        therapist_effects(tree, response="gad7")


def test_no_therapist_level_is_said() -> None:
    two_level = make_tree(levels=("patient",))
    with pytest.raises(SpecError, match=r"no random effects at the level 'therapist'; its levels are: patient"):
        summarize_therapists(two_level)
    assert list(summarize_therapists(two_level, level="patient").index.names) == ["patient"]


def test_table_columns_and_values(tree: xr.DataTree) -> None:
    table = summarize_therapists(tree)
    assert list(table.columns) == COLUMNS
    assert table.index.name == "therapist"
    draws = tree["posterior"]["u_therapist"].values[..., 0].reshape(-1, 6)
    np.testing.assert_allclose(table["mean"], draws.mean(axis=0), rtol=EXACT)
    np.testing.assert_allclose(table["sd"], draws.std(axis=0, ddof=1), rtol=EXACT)
    np.testing.assert_allclose(table["eti89_lb"], np.quantile(draws, 0.055, axis=0), rtol=EXACT)
    np.testing.assert_allclose(table["eti89_ub"], np.quantile(draws, 0.945, axis=0), rtol=EXACT)
    np.testing.assert_allclose(table["p_above"], (draws > 0).mean(axis=0), rtol=EXACT)
    ranks = (draws[:, :, None] >= draws[:, None, :]).sum(axis=2)
    np.testing.assert_allclose(table["expected_rank"], ranks.mean(axis=0), rtol=EXACT)
    np.testing.assert_allclose(table["rank_high"], np.quantile(ranks, 0.945, axis=0), rtol=EXACT)
    assert table["raw_mean"].isna().all()  # the level has a slope too


def test_interval_probability_and_threshold(made: xr.DataTree) -> None:
    table = summarize_therapists(made, ci_prob=0.5, threshold=1.0)
    draws = made["posterior"]["u_therapist"].values[..., 0].reshape(-1, 6)
    np.testing.assert_allclose(table["eti50_lb"], np.quantile(draws, 0.25, axis=0), rtol=EXACT)
    np.testing.assert_allclose(table["p_above"], (draws > 1.0).mean(axis=0), rtol=EXACT)
    with pytest.raises(SpecError, match="between 0 and 1, found 89"):
        summarize_therapists(made, ci_prob=89)


def test_caseload_is_counted(tree: xr.DataTree) -> None:
    table = summarize_therapists(tree)
    data = tree["constant_data"]
    rows = pd.DataFrame({k: data[f"{k}_of_obs"].values for k in ("therapist", "patient")})
    np.testing.assert_array_equal(table["n_patients"], rows.groupby("therapist")["patient"].nunique())
    np.testing.assert_array_equal(table["n_sessions"], rows.groupby("therapist").size())


def test_missing_outcomes_are_no_sessions(made: xr.DataTree) -> None:
    observed = made["observed_data"].to_dataset()
    y = observed["y"].values.copy()
    first = made["constant_data"]["patient_of_obs"].values == 0
    y[first] = np.nan
    gone = made.copy()
    gone["observed_data"] = xr.DataTree(observed.assign(y=("obs", y)))
    before, after = summarize_therapists(made), summarize_therapists(gone)
    assert after["n_patients"].iloc[0] == before["n_patients"].iloc[0] - 1
    assert after["n_sessions"].iloc[0] == before["n_sessions"].iloc[0] - first.sum()


@pytest.mark.parametrize("slopes", [(), ("alliance.within",)])
def test_raw_mean_is_the_mean_deviation_of_patients(slopes: tuple[str, ...]) -> None:
    sd = {"patient": {"Intercept": 4.0}, "therapist": {"Intercept": 2.0} | dict.fromkeys(slopes, 0.5)}
    tree = make_tree(truth=Truth(sd=sd, corr={}))
    table = summarize_therapists(tree)
    data = tree["constant_data"]
    beta = tree["posterior"]["beta"].mean(("chain", "draw")).values
    rows = pd.DataFrame(
        {
            "therapist": data["therapist_of_obs"].values,
            "patient": data["patient_of_obs"].values,
            "deviation": tree["observed_data"]["y"].values - data["X"].values @ beta,
        }
    )
    patients = rows.groupby(["therapist", "patient"])["deviation"].mean()
    expected = patients.groupby("therapist").mean()
    np.testing.assert_allclose(table["raw_mean"], expected, rtol=1e-9)  # sums of several hundred rows


def test_relabelling_and_reordering_therapists_permutes_only(made: xr.DataTree) -> None:
    order = np.array([4, 2, 0, 5, 1, 3])
    moved = made.copy()
    moved["posterior"] = xr.DataTree(made["posterior"].to_dataset().isel(therapist=order))
    data = made["constant_data"].to_dataset()
    place = np.argsort(order)
    for name in ("therapist_of_obs", "therapist_of_patient"):
        data[name] = (data[name].dims, place[data[name].values])
    moved["constant_data"] = xr.DataTree(data)
    pd.testing.assert_frame_equal(
        summarize_therapists(moved).loc[summarize_therapists(made).index], summarize_therapists(made)
    )


def test_integer_ids_survive_a_file(tmp_path) -> None:
    ids = [2**53 + 1 + k for k in range(6)]
    tree = make_tree(therapist_ids=ids)
    tree.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as back:
        assert summarize_therapists(back.load()).index.tolist() == ids


def test_ranks_of_known_draws() -> None:
    tree = make_tree(n_therapists=4, chains=1, draws=2)
    draws = tree["posterior"].to_dataset()
    values = np.array([[1.0, 3.0, 2.0, 0.0], [5.0, 3.0, 4.0, 4.0]])
    effects = draws["u_therapist"].values.copy()
    effects[0, :, :, 0] = values
    tree["posterior"] = xr.DataTree(draws.assign(u_therapist=(draws["u_therapist"].dims, effects)))
    ranks = rank_therapists(tree, top=0.25)
    np.testing.assert_array_equal(ranks["rank"].values[0], [[2, 4, 3, 1], [4, 1, 2.5, 2.5]])
    np.testing.assert_array_equal(ranks["expected_rank"], [3, 2.5, 2.75, 1.75])
    np.testing.assert_array_equal(ranks["percentile"], (np.array([3, 2.5, 2.75, 1.75]) - 0.5) / 4)
    np.testing.assert_array_equal(ranks["p_top"], [0.5, 0.5, 0, 0])
    turned = rank_therapists(tree, top=0.25, higher_is_better=False)
    np.testing.assert_array_equal(turned["rank"].values[0], [[3, 1, 2, 4], [1, 4, 2.5, 2.5]])
    assert turned.attrs["best"] == "lowest value"


def test_expected_ranks_by_the_normal_approximation(made: xr.DataTree) -> None:
    """E[R_k] = 1/2 + sum_j Phi((m_k - m_j) / sqrt(s_k^2 + s_j^2)) for independent normals (Lingsma et al. 2010)."""
    table = summarize_therapists(made)
    mean, sd = table["mean"].to_numpy(), table["sd"].to_numpy()
    pairs = norm.cdf((mean[:, None] - mean) / np.hypot(sd[:, None], sd))
    monte_carlo = 4 * 6 * 0.5 / np.sqrt(1000)  # four SDs of a mean of 1,000 draws of a rank, at its largest possible SD
    np.testing.assert_allclose(table["expected_rank"], pairs.sum(axis=1) + 0.5, atol=monte_carlo)


@pytest.mark.parametrize(("n", "top", "expected"), [(30, 0.1, 3), (20, 0.1, 2), (5, 0.1, 1), (25, 0.1, 3), (7, 1.0, 7)])
def test_the_top_is_the_smallest_number_that_makes_the_share(n: int, top: float, expected: int) -> None:
    assert n_top(n, top) == expected


def test_pairwise_probabilities(made: xr.DataTree) -> None:
    pairs = compare_therapists(made)
    draws = made["posterior"]["u_therapist"].values[..., 0].reshape(-1, 6)
    assert pairs.sel(therapist="T002", other="T005").item() == pytest.approx((draws[:, 1] > draws[:, 4]).mean())
    assert pairs.sel(therapist="T005", other="T002").item() == pytest.approx((draws[:, 4] > draws[:, 1]).mean())
    np.testing.assert_allclose(pairs.values + pairs.values.T, 1.0, atol=EXACT)


def test_reliability_posterior_form(tree: xr.DataTree) -> None:
    draws = tree["posterior"]["u_therapist"].values[..., 1].reshape(-1, 6)
    sd = tree["posterior"]["sd_therapist"].values[..., 1]
    expected = 1 - draws.var(axis=0, ddof=1) / (sd**2).mean()
    np.testing.assert_allclose(reliability(tree, term="time"), expected, rtol=1e-10)


def test_reliability_by_formula_is_the_posterior_form_of_the_conjugate_model() -> None:
    """With known variances Var(v_k | y) comes from inverting the joint precision of one therapist's patients."""
    tree = make_tree(truth=INTERCEPTS, draws=3, chains=2)
    found = reliability(tree, method="formula")
    data = tree["constant_data"]
    sd = tree["posterior"]
    for k in (0, 3):
        mine = data["therapist_of_obs"].values == k
        patient = np.unique(data["patient_of_obs"].values[mine], return_inverse=True)[1]
        for c, d in ((0, 0), (1, 2)):
            sv2 = sd["sd_therapist"].values[c, d, 0] ** 2
            su2 = sd["sd_patient"].values[c, d, 0] ** 2
            s2 = sd["sigma"].values[c, d] ** 2
            cov = sv2 + su2 * (patient[:, None] == patient) + s2 * np.eye(patient.size)
            one = np.full(patient.size, sv2)
            posterior_variance = sv2 - one @ np.linalg.solve(cov, one)
            np.testing.assert_allclose(found.values[c, d, k], 1 - posterior_variance / sv2, rtol=1e-9)


def test_reliability_by_formula_at_patient_and_clinic_level() -> None:
    truth = Truth(
        sd={"patient": {"Intercept": 4.0}, "therapist": {"Intercept": 2.0}, "clinic": {"Intercept": 1.0}}, corr={}
    )
    tree = make_tree(truth=truth, levels=("patient", "therapist", "clinic"), clinics=2, draws=2, chains=1)
    data, post = tree["constant_data"], tree["posterior"]
    found = reliability(tree, method="formula", level="clinic").values[0, 0]
    patients = data["patient_of_obs"].values
    therapists = data["therapist_of_obs"].values
    sv2, su2, sc2, s2 = (
        float(post[name].values[0, 0].squeeze()) ** 2 for name in ("sd_therapist", "sd_patient", "sd_clinic", "sigma")
    )
    mine = data["clinic_of_obs"].values == 1
    p, t = patients[mine], therapists[mine]
    cov = sc2 + sv2 * (t[:, None] == t) + su2 * (p[:, None] == p) + s2 * np.eye(p.size)
    one = np.full(p.size, sc2)
    np.testing.assert_allclose(found[1], one @ np.linalg.solve(cov, one) / sc2, rtol=1e-9)
    n = np.bincount(patients)
    of_patients = reliability(tree, method="formula", level="patient").values[0, 0]
    np.testing.assert_allclose(of_patients, su2 / (su2 + s2 / n), rtol=1e-10)
    assert {"n_therapists", "n_patients"} <= set(summarize_therapists(tree, level="clinic").columns)


def test_formula_refuses_correlated_residuals() -> None:
    with pytest.raises(SpecError, match="autoregressive"):
        reliability(make_tree(residual="ar1"), method="formula")


def test_minimum_caseload(made: xr.DataTree) -> None:
    assert float(caseload_for(xr.DataArray(0.05), reliability=0.7)) == pytest.approx(0.7 / 0.3 * 19)
    tree = make_tree(truth=INTERCEPTS)
    sv2 = tree["posterior"]["sd_therapist"].values[..., 0] ** 2
    su2 = tree["posterior"]["sd_patient"].values[..., 0] ** 2
    np.testing.assert_allclose(minimum_caseload(tree, reliability=0.8), 4 * su2 / sv2, rtol=1e-10)


def test_several_responses(made: xr.DataTree) -> None:
    both = two_response_tree(made)
    one = therapist_effects(both, term="time", response="gad7")
    np.testing.assert_array_equal(one.values, made["posterior"]["u_therapist"].values[..., 1] / 2)
    np.testing.assert_array_equal(therapist_effects(both, term="gad7~time").values, one.values)
    with pytest.raises(SpecError, match="in several responses: phq9~time, gad7~time"):
        therapist_effects(both, term="time")
    table = summarize_therapists(both, response="phq9")
    pd.testing.assert_frame_equal(table, summarize_therapists(made))


def test_500_therapists_in_time() -> None:
    tree = make_tree(n_therapists=500, patients_each=2, sessions_each=4, draws=1000, truth=INTERCEPTS)
    start = time.perf_counter()
    rank_therapists(tree)
    ranked = time.perf_counter() - start
    start = time.perf_counter()
    summarize_therapists(tree)
    assert max(ranked, time.perf_counter() - start) < SECONDS_ALLOWED

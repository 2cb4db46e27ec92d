import arviz as az
import numpy as np
import pytest
import xarray as xr

from psymech.inference.checks import Figure, SamplingReport, check_sampling
from psymech.inference.diagnostics import EXAMINED, screen
from tests.posterior.fitted_trees import make_tree


def changed(tree: xr.DataTree, group: str, **variables: np.ndarray) -> xr.DataTree:
    new = tree.copy()
    data = tree[group].to_dataset()
    new[group] = xr.DataTree(data.assign({name: (data[name].dims, values) for name, values in variables.items()}))
    return new


def cut(tree: xr.DataTree, **index: slice) -> xr.DataTree:
    new = tree.copy()
    for group in ("posterior", "sample_stats"):
        new[group] = xr.DataTree(tree[group].to_dataset().isel(index))
    return new


def figure(report: SamplingReport, name: str) -> Figure:
    return next(f for f in report.figures if f.name == name)


def test_good_draws_are_ok(tree: xr.DataTree) -> None:
    report = check_sampling(tree)
    assert report.verdict == "ok", str(report)
    assert report.ok
    assert any(m.kind == "note" and "6 therapists" in m.text for m in report.messages)
    assert str(report).startswith("Sampling: ok")


def test_figures_are_arviz(made: xr.DataTree) -> None:
    report = check_sampling(made)
    variables = ["beta", "sd_patient", "sd_therapist", "sigma"]
    values = az.summary(made, var_names=variables, kind="diagnostics", round_to="none")
    corr = {
        name: made["posterior"][name].isel({made["posterior"][name].dims[2]: 0, made["posterior"][name].dims[3]: 1})
        for name in ("corr_patient", "corr_therapist")
    }
    rhat = max(values["r_hat"].max(), *(float(az.rhat(da, sample_dims=["chain", "draw"])) for da in corr.values()))
    assert figure(report, "R-hat, largest").value == pytest.approx(rhat, rel=1e-10)
    tail = min(
        values["ess_tail"].min(),
        *(float(az.ess(da, sample_dims=["chain", "draw"], method="tail")) for da in corr.values()),
    )
    assert figure(report, "ESS tail, smallest").value == pytest.approx(tail, rel=1e-10)
    energy = az.bfmi(made)["energy"].values
    ours = [figure(report, f"E-BFMI, chain {c}").value for c in range(4)]
    np.testing.assert_allclose(ours, energy, rtol=1e-10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_is_never_ok(made: xr.DataTree, value: float) -> None:
    sd = made["posterior"]["sd_therapist"].values.copy()
    sd[2, 100, 0] = value
    report = check_sampling(changed(made, "posterior", sd_therapist=sd))
    assert report.verdict == "not ok"
    assert any("sd_therapist[Intercept]" in m.text for m in report.messages)


def test_constant_is_never_ok(made: xr.DataTree) -> None:
    report = check_sampling(changed(made, "posterior", sigma=np.full((4, 250), 3.0)))
    assert report.verdict == "not ok"
    assert any("sigma never moves" in m.text for m in report.messages)


def test_one_chain_constant(made: xr.DataTree) -> None:
    sigma = made["posterior"]["sigma"].values.copy()
    sigma[3] = 3.0
    report = check_sampling(changed(made, "posterior", sigma=sigma))
    assert report.verdict == "not ok"
    assert not figure(report, "R-hat, largest").ok


def test_one_chain_and_few_draws_are_not_assessable(made: xr.DataTree) -> None:
    one = check_sampling(cut(made, chain=slice(0, 1)))
    assert one.verdict == "not assessable"
    assert any("chains=4" in m.remedy for m in one.messages)
    assert check_sampling(cut(made, draw=slice(0, 60))).verdict == "not assessable"
    without = made.copy()
    del without["sample_stats"]
    assert check_sampling(without).verdict == "not assessable"


def test_failures_win_over_not_assessable(made: xr.DataTree) -> None:
    one = cut(made, chain=slice(0, 1))
    diverging = np.zeros((1, 250), dtype=bool)
    diverging[0, 3] = True
    assert check_sampling(changed(one, "sample_stats", diverging=diverging)).verdict == "not ok"


def test_chains_that_disagree(made: xr.DataTree) -> None:
    beta = made["posterior"]["beta"].values.copy()
    beta[0, :, 1] += 1.0
    report = check_sampling(changed(made, "posterior", beta=beta))
    assert report.verdict == "not ok"
    assert figure(report, "R-hat, largest").where == "beta[time]"


def test_slow_chains_have_few_effective_draws(made: xr.DataTree) -> None:
    rng = np.random.default_rng(3)
    walk = np.zeros((4, 250))
    for t in range(1, 250):
        walk[:, t] = 0.97 * walk[:, t - 1] + rng.normal(size=4)
    report = check_sampling(changed(made, "posterior", sigma=walk))
    assert report.verdict == "not ok"
    assert figure(report, "ESS bulk, smallest").where == "sigma"


@pytest.mark.parametrize(
    ("name", "needle"),
    [
        ("diverging", "1 of 1000 draws diverged"),
        ("energy", "E-BFMI"),
        ("maxdepth_reached", "reached the largest tree depth"),
    ],
)
def test_sampler_statistics(made: xr.DataTree, name: str, needle: str) -> None:
    values = np.zeros((4, 250))
    if name == "energy":
        values = np.cumsum(np.random.default_rng(1).normal(size=(4, 250)), axis=1)
    else:
        values[1, 1] = 1
    report = check_sampling(changed(made, "sample_stats", **{name: values}))
    assert any(needle in m.text for m in report.messages)
    assert report.verdict == ("ok" if name == "maxdepth_reached" else "not ok")


def test_depth_statistics_of_other_samplers(made: xr.DataTree) -> None:
    stats = made["sample_stats"].to_dataset().drop_vars(["maxdepth_reached", "depth"])
    depth = np.full((4, 250), 5)
    depth[0, 0] = 10
    new = made.copy()
    new["sample_stats"] = xr.DataTree(stats.assign(tree_depth=(("chain", "draw"), depth)))
    assert figure(check_sampling(new), "saturated trees").value == 1


def test_uncorrelated_blocks_are_no_constants(made: xr.DataTree) -> None:
    corr = np.broadcast_to(np.eye(2), (4, 250, 2, 2))
    assert check_sampling(changed(made, "posterior", corr_patient=corr)).verdict == "ok"


def test_one_stuck_therapist_among_many_is_found() -> None:
    tree = make_tree(n_therapists=300, patients_each=2, sessions_each=3)
    effects = tree["posterior"]["u_therapist"].values.copy()
    effects[0, :, 137, 1] += 3.0
    report = check_sampling(changed(tree, "posterior", u_therapist=effects))
    worst = figure(report, "R-hat, largest, units' effects")
    assert report.verdict == "not ok"
    assert worst.where.startswith("u_therapist[T138, time]")


def test_the_screen_keeps_the_suspects() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 200, 1200))
    values[1, :, 700] += 2.0
    for t in range(1, 200):
        values[:, t, 40] = 0.9 * values[:, t - 1, 40] + 0.4 * values[:, t, 40]
    kept = screen(values)
    assert {40, 700} <= set(kept.tolist())
    assert kept.size <= 2 * EXAMINED


def test_table_of_figures(made: xr.DataTree) -> None:
    frame = check_sampling(made).to_frame()
    assert frame["ok"].all()
    assert frame.loc["divergences", "value"] == 0

"""Many fits: threads and a cluster agree, a killed run goes on, failures are told, ArviZ reads the result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.calibration.store import FITS, Journal
from psymech.graph.build import BuiltModel
from tests.calibration.conjugate import WITHOUT_THERAPISTS, exact, spec, table
from tests.calibration.runs import SIMULATIONS, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole() -> xr.DataTree:
    return run()


def same(a: xr.DataTree, b: xr.DataTree) -> None:
    for group in ("prior_sbc", "truth", "posterior_mean", "posterior_sd"):
        xr.testing.assert_identical(a[group].to_dataset(), b[group].to_dataset())


def test_simulations_do_not_depend_on_the_order_of_work(whole: xr.DataTree):
    same(run(workers=3), whole)
    fewer = run(simulations=7)
    xr.testing.assert_identical(fewer["prior_sbc"].to_dataset(), whole["prior_sbc"].to_dataset().isel(draw=slice(0, 7)))
    assert not run(simulations=7, seed=6)["truth"].dataset["beta"].equals(fewer["truth"].dataset["beta"])


def test_a_cluster_gives_the_same(whole: xr.DataTree, tmp_path: Path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = run(client=client, store=tmp_path / "store")
    same(found, whole)
    assert len((tmp_path / "store" / FITS).read_text().splitlines()) == SIMULATIONS


def test_a_killed_run_goes_on_where_it_was(whole: xr.DataTree, tmp_path: Path):
    store = tmp_path / "store"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.calibration.runs", str(store), "0.2"], cwd=ROOT, env=environment
    )
    deadline = time.monotonic() + 240
    journal = store / FITS
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(psm.DataError, match=f"in use by process {child.pid}"):
        run(store=store)
    assert child.poll() is None, "the run ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = journal.read_bytes()
    finished = kept.count(b"\n")
    assert 4 <= finished < SIMULATIONS
    journal.write_bytes(kept + b'0123456789abcdef {"simulation": 29, "ra')  # a line that the kill tore

    calls = []

    def counted(built: BuiltModel, seed: int) -> xr.DataTree:
        calls.append(seed)
        return exact(built, seed)

    counted.__qualname__ = exact.__qualname__
    same(run(fit=counted, store=store), whole)
    assert len(calls) == SIMULATIONS - finished
    same(run(fit=counted, store=store), whole)
    assert len(calls) == SIMULATIONS - finished  # nothing was left to do


def test_a_store_of_another_run_is_refused(tmp_path: Path):
    run(simulations=1, store=tmp_path)
    with pytest.raises(psm.DataError, match="seed differs"):
        run(simulations=1, seed=6, store=tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["engine"] == "explicit"


def test_a_changed_line_is_not_trusted(tmp_path: Path):
    journal = Journal(tmp_path, {"what": "a run"})
    journal.add({"simulation": 0, "status": "ok"})
    journal.add({"simulation": 1, "status": "ok"})
    path = tmp_path / FITS
    path.write_text(path.read_text().replace('"simulation": 1', '"simulation": 2'))
    assert set(journal.finished()) == {0}


def test_a_fit_that_raises_is_a_failure_with_its_words():
    def broken(built: BuiltModel, seed: int) -> xr.DataTree:
        if seed % 3 == 0:
            raise RuntimeError("the sampler fell over")
        return exact(built, seed)

    result = run(fit=broken)
    failed = psm.calibration_failures(result)
    assert 0 < len(failed) < SIMULATIONS
    assert {words for _, _, words in failed} == {"RuntimeError: the sampler fell over"}
    assert result["simulations"].sizes["simulation"] == SIMULATIONS
    assert result["prior_sbc"].sizes["draw"] == SIMULATIONS - len(failed)


def test_draws_that_are_not_finite_are_a_failure():
    def broken(built: BuiltModel, seed: int) -> xr.DataTree:
        tree = exact(built, seed)
        tree["posterior"].dataset["beta"].values[0, 3, 0] = np.nan
        return tree

    assert {status for _, status, _ in psm.calibration_failures(run(fit=broken, simulations=2))} == {"error"}


def test_chains_that_disagree_are_unreliable():
    def apart(built: BuiltModel, seed: int) -> xr.DataTree:
        parts = [exact(built, seed + k)["posterior"].to_dataset() for k in range(3)]
        parts[1]["u_patient"] = parts[1]["u_patient"] + 5.0
        posterior = xr.concat(parts, dim="chain").assign_coords(chain=range(3), draw=range(19))
        stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((3, 19), dtype=bool))})
        return xr.DataTree.from_dict({"/posterior": posterior, "/sample_stats": stats})

    result = psm.calibrate(
        spec(),
        table(therapists=False),
        simulations=2,
        seed=1,
        draws=19,
        chains=3,
        thinned=19,
        truth=WITHOUT_THERAPISTS,
        fit=apart,
        workers=1,
        progressbar=False,
    )
    assert all("R-hat" in words for _, status, words in psm.calibration_failures(result) if status == "unreliable")
    assert len(psm.calibration_failures(result)) == 2
    assert result["prior_sbc"].sizes["draw"] == 2


@pytest.mark.filterwarnings("ignore:.*figure.*:RuntimeWarning")
def test_arviz_draws_the_ranks(whole: xr.DataTree):
    collection = az.plot_ecdf_pit(whole, var_names=["log_likelihood"], backend="none")
    assert "log_likelihood" in collection.viz["ecdf_lines"]


def test_ranks_of_fixed_truths_are_not_checked(whole: xr.DataTree):
    with pytest.raises(psm.SpecError, match="set true values"):
        psm.check_calibration(whole)
    with pytest.raises(psm.DataError, match=r"result of psymech\.calibrate"):
        psm.check_calibration(xr.DataTree())


def test_coverage_counts_truths_inside(whole: xr.DataTree):
    pit = whole["prior_sbc"].dataset["beta"].sel(term="w").values[0]
    table = psm.coverage(whole, probs=(0.5, 0.9)).set_index("quantity")
    row = table.loc["beta[w]"]
    assert row["n"] == SIMULATIONS
    assert row["coverage_0.5"] == pytest.approx(((pit > 0.25) & (pit < 0.75)).mean())
    assert row["coverage_0.9"] == pytest.approx(((pit > 0.05) & (pit < 0.95)).mean())
    mean, sd, truth = (
        whole[g].dataset["beta"].sel(term="w").values[0] for g in ("posterior_mean", "posterior_sd", "truth")
    )
    assert row["z_mean"] == pytest.approx(((mean - truth) / sd).mean())
    assert row["contraction"] == pytest.approx(1 - (sd**2).mean() / truth.var(ddof=1))
    assert np.isnan(table.loc["sd_patient[Intercept]", "contraction"])  # its truth is the same every time
    pooled = psm.coverage(whole, by_entry=False).set_index("quantity")
    entries = [name for name in table.index if name.startswith("u_patient[") and name.endswith("x.within]")]
    assert len(entries) == 2
    assert pooled.loc["u_patient[x.within]", "coverage_0.9"] == pytest.approx(table.loc[entries, "coverage_0.9"].mean())


@pytest.mark.filterwarnings("ignore::psymech.DesignWarning")  # the shipped study has a patient with one lagged session
def test_what_cannot_be_calibrated_is_refused():
    data = psm.load_example("process_study")
    with pytest.raises(psm.SpecError, match="predicts itself"):
        psm.calibrate(psm.process("phq9", autoregressive=True), data, simulations=1, seed=1)
    with pytest.raises(psm.SpecError, match="simulations: expected a whole number"):
        psm.calibrate(psm.growth("phq9"), data, simulations=0, seed=1)
    with pytest.raises(psm.SpecError, match="thinned: 99 draws"):
        psm.calibrate(psm.growth("phq9"), data, draws=10, chains=2, seed=1)
    with pytest.raises(psm.SpecError, match="compile the explicit graph for every"):
        psm.calibrate(psm.growth("phq9"), data, engine="explicit", fresh_priors=True, seed=1)


@pytest.mark.sampling
def test_twenty_simulations_on_the_collapsed_engine():
    model = psm.growth("y", random={"patient": []})
    sizes = psm.Sizes(therapists=6, patients=4, sessions=5, sessions_spread=1)
    data = psm.simulate(model, sizes=sizes, seed=1).data()
    result = psm.calibrate(model, data, simulations=20, seed=1, draws=800, tune=300, workers=2, progressbar=False)
    report = psm.check_calibration(result)
    assert report.ok, f"{report}\n{psm.calibration_failures(result)}"
    assert {"beta[time]", "sd_therapist[Intercept]", "therapist_share", "log_marginal"} <= set(report.table["quantity"])
    assert float(result["simulations"].dataset["ess"].min()) > 49.5
    alone = psm.calibrate(model, data, simulations=2, seed=1, draws=800, tune=300, workers=1, progressbar=False)
    xr.testing.assert_identical(
        alone["prior_sbc"].to_dataset(), result["prior_sbc"].to_dataset().isel(draw=slice(0, 2))
    )

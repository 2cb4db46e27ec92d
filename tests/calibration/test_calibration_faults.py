"""The calibration loop passes a fit that is right and catches faults, each seeded into a fit in closed form."""

import numpy as np
import pytest

import psymech as psm
from psymech.calibration.fitting import Job, compare, replicate
from psymech.calibration.run import ATTR_TRUTH, assemble_result
from psymech.graph.build import BuiltModel
from tests.calibration.conjugate import Floats, exact, fit_with, job
from tests.calibration.faults import CHANGES, TWISTS

SIMULATIONS = 110
Replicates = list[tuple[BuiltModel, Floats, int]]


@pytest.fixture(scope="module")
def known_job() -> Job:
    return job()


@pytest.fixture(scope="module")
def replicates(known_job: Job) -> Replicates:
    found = []
    for number in range(SIMULATIONS):
        a, b, c = np.random.SeedSequence(known_job.seed, spawn_key=(number,)).spawn(3)
        built, truth = replicate(known_job, np.random.default_rng(a), np.random.default_rng(b))
        found.append((built, truth, int(c.generate_state(1)[0])))
    return found


def report(known_job: Job, replicates: Replicates, fit) -> psm.CalibrationReport:
    records = [
        {"simulation": k, "truth": truth.tolist(), "seconds": 0.0}
        | compare(known_job.plan, built, fit(built, seed), truth, known_job.settings)
        for k, (built, truth, seed) in enumerate(replicates)
    ]
    result = assemble_result(known_job, records)
    result.attrs[ATTR_TRUTH] = "{}"  # the variances are known to the fit as well, so the ranks of the rest are uniform
    return psm.check_calibration(result)


def test_a_fit_that_is_right_passes(known_job: Job, replicates: Replicates):
    found = report(known_job, replicates, exact)
    assert found.ok, str(found)
    assert found.failed == 0
    assert found.table["in_band"].mean() > 0.8


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_is_wrong_is_caught(known_job: Job, replicates: Replicates, name: str):
    found = report(known_job, replicates, fit_with(CHANGES[name]))
    assert not found.ok, str(found)


@pytest.mark.parametrize("name", TWISTS)
def test_draws_that_are_misread_are_caught(known_job: Job, replicates: Replicates, name: str):
    found = report(known_job, replicates, fit_with(twist=TWISTS[name]))
    assert not found.ok, str(found)


def test_ignored_rows_are_seen_by_the_log_likelihoods(known_job: Job, replicates: Replicates):
    table = report(known_job, replicates, fit_with(CHANGES["data_ignored"])).table.set_index("quantity")
    caught = set(table.index[table["adjusted"] < 0.001])
    # Draws from the prior have the right ranks for every parameter (Modrák et al. 2023).
    assert caught == {"log_likelihood", "log_marginal"}


def test_too_many_failed_fits_are_not_ok(known_job: Job, replicates: Replicates):
    records = [
        {"simulation": k, "truth": truth.tolist()}
        | compare(known_job.plan, built, exact(built, seed), truth, known_job.settings)
        for k, (built, truth, seed) in enumerate(replicates[:60])
    ]
    for record in records[:3]:
        record |= {"status": "unreliable", "message": "R-hat 1.2"}
    result = assemble_result(known_job, records)
    result.attrs[ATTR_TRUTH] = "{}"
    found = psm.check_calibration(result)
    assert found.failed == 3 and not found.ok
    assert (found.table["adjusted"] >= found.alpha).all()
    assert result["prior_sbc"].sizes["draw"] == 60  # their ranks are kept
    assert psm.calibration_failures(result) == [(k, "unreliable", "R-hat 1.2") for k in range(3)]

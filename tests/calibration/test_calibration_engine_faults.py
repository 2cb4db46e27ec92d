"""Faults seeded into the collapsed engine's fits are caught; without a fault the same loop passes."""

import pytest

from tests.calibration.engine_faults import FAULTS, calibrated, sampled

SIMULATIONS = 200


@pytest.mark.slow
def test_the_engine_itself_passes():
    report = calibrated(sampled, simulations=SIMULATIONS)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_caught(name: str):
    report = calibrated(FAULTS[name], simulations=SIMULATIONS)
    assert (report.table["adjusted"] < report.alpha).any(), str(report)

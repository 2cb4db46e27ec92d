"""Simulated patients who change therapist."""

import numpy as np
import pytest

import psymech as psm
from psymech.errors import SpecError
from psymech.simulation import Sizes, simulate

SIZES = Sizes(therapists=6, patients=30, sessions=6, switching=0.4)
SPEC = psm.growth("y", random={"patient": []}, membership="to date")


def test_share_of_patients_who_change_and_of_those_who_do_not() -> None:
    study = simulate(SPEC, sizes=SIZES, seed=3)
    seen = study.frame.groupby("patient")["therapist"].nunique()
    assert set(seen) == {1, 2}
    share = (seen == 2).mean()
    assert abs(share - 0.4) < 4 * np.sqrt(0.24 / len(seen))  # four standard errors
    at = study.frame.sort_values(["patient", "session"]).groupby("patient")["therapist"]
    changes = at.apply(lambda held: (held != held.shift()).sum() - 1)
    assert changes.max() == 1
    data = study.data()
    assert data.patient_ids == "crossed"
    assert np.array_equal(data.source_row, np.arange(data.n_sessions))  # the truth is in the order of the table


def test_outcome_is_built_of_the_shares_of_the_sessions_so_far() -> None:
    study = simulate(SPEC, sizes=SIZES, truth={"sigma": 1e-9, "sd_therapist": 3.0}, seed=4)
    frame, truth = study.frame, study.truth
    effect = dict(zip(truth["therapist"].values, truth["u_therapist"].values[:, 0], strict=True))
    own = dict(zip(truth["patient"].values, truth["u_patient"].values[:, 0], strict=True))
    beta = truth["beta"].values
    ordered = frame.sort_values(["patient", "session"])
    so_far = ordered["therapist"].map(effect).groupby(ordered["patient"]).expanding().mean().droplevel(0)
    expected = beta[0] + beta[1] * frame["session"] + frame["patient"].map(own) + so_far[frame.index]
    np.testing.assert_allclose(frame["y"], expected, atol=1e-6)  # the residual SD is 1e-9

    current = simulate(psm.growth("y", random={"patient": []}), sizes=SIZES, truth={"sigma": 1e-9}, seed=4)
    assert not np.allclose(current.frame["y"], frame["y"])
    share = truth["variance"].sel(level="therapist") / 9
    squared = ordered.groupby("patient")["therapist"].transform(
        lambda held: [(held[: t + 1].value_counts(normalize=True) ** 2).sum() for t in range(len(held))]
    )
    assert float(share) == pytest.approx(squared.mean())


def test_other_studies_are_as_they_were_and_impossible_ones_are_refused() -> None:
    plain = Sizes(therapists=6, patients=30, sessions=6)
    study = simulate(psm.growth("y"), sizes=plain, seed=3)
    assert study.data().patient_ids == "unique"
    with pytest.raises(SpecError, match="two therapists or more"):
        Sizes(therapists=1, switching=0.2)
    with pytest.raises(SpecError, match=r"residual='ar1' together with Sizes\.switching"):
        simulate(psm.growth("y", residual="ar1"), sizes=SIZES, seed=1)
    with pytest.raises(SpecError, match=r"Sizes\.missing together"):
        simulate(SPEC, sizes=Sizes(switching=0.2, missing=0.1), seed=1)

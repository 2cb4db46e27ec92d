"""Detectors of events: published criteria, numbers of another program, and no look-ahead."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psymech as psm

SESSIONS = [f"bdi_s{i}" for i in range(1, 13)]


def from_wide(wide: pd.DataFrame) -> psm.SessionData:
    """One row a session, numbered by the column; sessions without a value are rows without a value."""
    long = wide[["id", *SESSIONS]].melt(id_vars="id", var_name="session", value_name="bdi")
    long["session"] = long["session"].str.removeprefix("bdi_s").astype(int)
    return psm.SessionData.from_frame(long.rename(columns={"id": "patient"}), therapist=None)


@pytest.fixture(scope="module")
def suddengains(shared_data: Path) -> psm.SessionData:
    path = shared_data / "suddengains" / "sgdata.csv"
    if not path.is_file():
        pytest.skip("shared/data/suddengains/sgdata.csv is absent")
    return from_wide(pd.read_csv(path))


def test_gains_of_the_r_package(suddengains: psm.SessionData):
    # describe_sg() on sgdata, cut-off 7: tests/testthat/test-describe_sg.R of the R package suddengains
    gains = psm.sudden_gains(suddengains, "bdi", cutoff=7)
    assert len(gains) == 24
    assert gains["patient"].nunique() == 15
    assert (gains["patient"].value_counts() > 1).sum() == 8
    assert gains["reversed_at"].notna().sum() == 4
    assert -gains["change"].mean() == pytest.approx(11.0, abs=0.005)
    assert gains["change"].std() == pytest.approx(3.43, abs=0.005)


# (patient, session n) of tests/testthat/test-create_bysg.R of the R package suddengains, and its eighteen patients
R_GAINS = [(1, 3), (1, 7), (3, 8), (4, 3), (5, 3), (5, 8), (9, 3), (10, 2), (10, 4), (12, 3), (13, 3), (13, 8)]
R_GAINS += [(14, 2), (18, 3)]
R_REVERSED = {(1, 3), (4, 3), (12, 3)}
N = None
R_SCORES = [
    [35, 37, 34, 23, 24, 21, 29, 17, 11, 11, 10, 7],
    [26, N, 26, N, 27, 17, 19, 11, 10, 3, N, 7],
    [35, 38, 35, 37, 36, 37, N, 35, 26, 24, N, 19],
    [31, 30, 32, 22, 22, 20, 21, 19, 24, 33, 30, 28],
    [39, 37, 36, 26, 26, 23, 21, 19, 6, 7, 8, 8],
    [37, N, 23, N, 23, 21, N, N, 19, N, 16, 13],
    [37, N, 23, 21, N, 21, N, N, N, N, N, 20],
    [41, 37, N, N, N, N, N, N, N, N, N, N],
    [35, 34, 32, 23, 24, 22, 21, 17, 14, 10, 13, 11],
    [35, 35, 25, 25, 17, 17, 16, 16, 11, 9, 7, 8],
    [40, N, 36, 37, 36, 37, N, 34, 26, 25, N, 19],
    [38, 38, 31, 23, 21, 22, 24, 25, 30, 31, N, 25],
    [34, 33, 36, 23, 25, 23, 19, 18, 10, 9, 8, 9],
    [39, 37, 23, N, 23, 21, N, N, 21, N, 16, 14],
    [28, 19, 23, 12, 13, N, 13, N, N, N, N, 22],
    [25, N, N, N, N, N, N, N, N, N, N, 20],
    [41, 37, N, N, N, N, N, N, N, N, N, N],
    [N, 38, 35, 24, N, 22, 17, 16, N, 9, 11, 13],
]


@pytest.fixture(scope="module")
def eighteen() -> psm.SessionData:
    wide = pd.DataFrame(R_SCORES, columns=SESSIONS, dtype=float).assign(id=range(1, 19))
    return from_wide(wide)


def test_each_gain_of_the_r_package(eighteen: psm.SessionData):
    gains = psm.sudden_gains(eighteen, "bdi", cutoff=7)
    found = list(zip(gains["patient"], gains["session"].astype(int), strict=True))
    assert found == R_GAINS
    reversed_ = gains["reversed_at"].notna()
    assert {pair for pair, back in zip(found, reversed_, strict=True) if back} == R_REVERSED


def test_criteria_one_by_one():
    def gains(scores, **options):
        rows = pd.DataFrame({"patient": 1, "session": range(1, len(scores) + 1), "bdi": scores})
        return psm.sudden_gains(psm.SessionData.from_frame(rows, therapist=None), "bdi", **options)

    steady = [30, 31, 30, 20, 21, 20]
    assert gains(steady, cutoff=10)["session"].tolist() == [3.0]
    assert gains(steady, cutoff=10.5).empty  # criterion 1
    assert gains(steady, cutoff=7, percent=34).empty  # criterion 2: 10 of 30
    assert gains([30, 18, 30, 20, 29, 20], cutoff=7)["session"].tolist() == []  # criterion 3: fluctuation
    assert gains(steady[::-1], cutoff=7, losses=True)["session"].tolist() == [3.0]
    assert gains(steady, cutoff=7, losses=True).empty
    # means 30 and 20, pooled SD sqrt(2 * 16 / 3) = 3.27 of three and two values: 2.776 * 3.27 < 10 < 3.182 * 3.27
    edge = [26, 34, 30, 20, 20]
    assert gains(edge, cutoff=7).empty
    assert gains(edge, cutoff=7, adjust=False)["session"].tolist() == [3.0]


def test_a_gain_is_provisional_until_its_window_is_recorded():
    scores = [30, 31, 30, 20, 21, 20]
    rows = pd.DataFrame({"patient": 1, "session": range(1, 7), "bdi": scores})
    for n, known_at in ((6, 6.0), (5, np.nan)):
        gains = psm.sudden_gains(psm.SessionData.from_frame(rows.head(n), therapist=None), "bdi", cutoff=7)
        assert gains["provisional"].tolist() == [n < 6]
        np.testing.assert_equal(gains["known_at"].to_numpy(), [known_at])


@st.composite
def studies(draw) -> pd.DataFrame:
    rows = []
    for patient in range(draw(st.integers(1, 4))):
        numbers = draw(st.lists(st.integers(1, 12), min_size=1, max_size=12, unique=True))
        values = draw(st.lists(st.integers(0, 40), min_size=len(numbers), max_size=len(numbers)))
        rows += [(f"P{patient}", t, v) for t, v in zip(numbers, values, strict=True)]
    return pd.DataFrame(rows, columns=["patient", "session", "score"])


def whole_and_truncated(frame: pd.DataFrame, m: int) -> tuple[psm.SessionData, psm.SessionData | None]:
    kept = frame[frame["session"] <= m]
    read = psm.SessionData.from_frame
    return read(frame, therapist=None), read(kept, therapist=None) if len(kept) else None


@given(studies(), st.integers(1, 12))
@settings(max_examples=150)
def test_no_detector_looks_ahead(frame: pd.DataFrame, m: int):
    whole, truncated = whole_and_truncated(frame, m)
    if truncated is None:
        return
    for losses in (False, True):
        early = psm.sudden_gains(truncated, "score", cutoff=4, losses=losses)
        late = psm.sudden_gains(whole, "score", cutoff=4, losses=losses)
        late["reversed_at"] = late["reversed_at"].where(late["reversed_at"] <= m)
        pd.testing.assert_frame_equal(
            early[~early["provisional"].astype(bool)].reset_index(drop=True),
            late[late["known_at"] <= m].reset_index(drop=True),
            check_dtype=False,
        )
    for reference in ("previous", "mean"):
        early = psm.ruptures(truncated, "score", reference=reference)
        late = psm.ruptures(whole, "score", reference=reference)
        late = late[late["session"] <= m].reset_index(drop=True)
        unrepaired = ~(late["repaired_at"] <= m)
        late.loc[unrepaired, ["repaired_at", "length"]] = np.nan
        pd.testing.assert_frame_equal(early, late, check_dtype=False)
    early = psm.early_response(truncated, "score", by=m, percent=20)
    late = psm.early_response(whole, "score", by=m, percent=20).loc[early.index]
    pd.testing.assert_frame_equal(early, late)


def test_rupture_takes_the_stricter_spread_and_counts_one_episode():
    rows = pd.DataFrame(
        {
            "patient": ["A"] * 7 + ["B"] * 7,
            "session": [*range(1, 8)] * 2,
            "wai": [5.0, 5.1, 4.9, 4.2, 4.1, 4.8, 5.0, 3.0, 3.1, 2.9, 3.0, 3.0, 3.0, 3.0],
        }
    )
    data = psm.SessionData.from_frame(rows, therapist=None)
    assert psm.ruptures(data, "wai").empty  # the patients differ by 2, so that a drop of 0.7 is within their spread
    alone = psm.SessionData.from_frame(rows[rows["patient"] == "A"], therapist=None)
    found = psm.ruptures(alone, "wai")
    assert found["session"].tolist() == [4.0]
    assert found["drop"].tolist() == pytest.approx([0.7])
    assert found["threshold"].tolist() == pytest.approx([0.1])  # SD of 5.0, 5.1, 4.9
    assert found["repaired_at"].tolist() == [7.0]  # 4.8 is not above 4.9 - 0.1
    assert found["length"].tolist() == [3.0]
    assert psm.ruptures(data, "wai", sd=0.3, size=2)["session"].tolist() == [4.0]
    assert psm.ruptures(data, "wai", sd=0.3, size=3)["session"].tolist() == []


def test_early_response_by_threshold_and_percentage():
    rows = pd.DataFrame(
        {
            "patient": ["A", "A", "A", "B", "B", "C", "D", "D"],
            "session": [1, 3, 5, 1, 4, 1, 5, 6],
            "phq9": [20.0, 15.0, 2.0, 10.0, 9.0, 12.0, 8.0, 7.0],
        }
    )
    pre = pd.DataFrame({"patient": ["A", "B", "C", "D"], "phq9_pre": [24.0, 18.0, 13.0, 9.0]})
    data = psm.SessionData.from_frame(rows, therapist=None, patients=pre)
    found = psm.early_response(data, "phq9", by=4, threshold=5)
    assert found["responded"].tolist()[:2] == [True, False]
    assert found["responded"].isna().tolist() == [False, False, True, True]
    assert found.loc["A", ["session", "value", "change", "percent_change"]].tolist() == [3.0, 15.0, -5.0, -25.0]
    assert psm.early_response(data, "phq9", by=4, threshold=5, percent=30)["responded"].tolist()[:2] == [False, False]
    with_pre = psm.early_response(data, "phq9", by=4, threshold=5, baseline="phq9_pre")
    assert with_pre["responded"].tolist()[:3] == [True, True, False]
    assert np.isnan(with_pre.loc["D", "value"])


def test_impossible_options_are_refused(eighteen: psm.SessionData):
    for options in ({"cutoff": 0.0}, {"cutoff": 7.0, "alpha": 1.5}, {"cutoff": 7.0, "percent": -1.0}):
        with pytest.raises(psm.SpecError):
            psm.sudden_gains(eighteen, "bdi", **options)
    with pytest.raises(psm.SpecError, match="threshold"):
        psm.early_response(eighteen, "bdi", by=3)
    for options in ({"size": 0}, {"reference": "median"}, {"min_sessions": 1}, {"sd": -1.0}):
        with pytest.raises(psm.SpecError):
            psm.ruptures(eighteen, "bdi", **options)
    with pytest.raises(psm.DataError, match="bdy"):
        psm.ruptures(eighteen, "bdy")


def test_ties_between_decimals_reach_their_criterion():
    """5.1 - 4.1 is 0.9999999999999996 in floating point: one point all the same."""
    scores = [5.1, 5.1, 5.1, 4.1, 4.1, 4.1]
    frame = pd.DataFrame({"patient": 1, "session": range(1, 7), "mood": scores})
    data = psm.SessionData.from_frame(frame, therapist=None)
    assert psm.sudden_gains(data, "mood", cutoff=1.0, percent=0)["session"].tolist() == [3.0]
    assert psm.ruptures(data, "mood", sd=1.0)["session"].tolist() == [4.0]
    assert psm.early_response(data, "mood", by=4, threshold=1.0)["responded"].tolist() == [True]
    half = pd.DataFrame({"patient": 1, "session": range(1, 7), "mood": [16.0, 16.0, 16.0, 11.8, 13.9, 11.8]})
    back = psm.sudden_gains(psm.SessionData.from_frame(half, therapist=None), "mood", cutoff=4.2)
    assert back["reversed_at"].isna().tolist() == [True]  # half of the gain is lost, not more


def test_a_repair_passes_the_band_and_constant_ratings_have_no_ruptures():
    frame = pd.DataFrame({"patient": 1, "session": range(1, 7), "wai": [5.1, 5.1, 5.1, 4.0, 4.1, 4.2]})
    data = psm.SessionData.from_frame(frame, therapist=None)
    assert psm.ruptures(data, "wai", sd=1.0)["repaired_at"].tolist() == [6.0]  # 5.1 - 1.0 is 4.1: not above it
    assert psm.ruptures(data, "wai").empty  # 4.3, 4.3, 4.3 has an SD of 9e-16, 5, 5, 5 has none


def test_no_gain_has_the_types_of_a_gain(eighteen: psm.SessionData):
    none = psm.sudden_gains(eighteen, "bdi", cutoff=60)
    assert none.empty
    assert none[~none["provisional"]].columns.tolist() == none.columns.tolist()


def test_a_baseline_is_one_value_a_patient():
    frame = pd.DataFrame({"patient": [1, 1, 2], "session": [1, 2, 1], "y": [3.0, 1.0, 2.0], "y0": [3.0, 4.0, 2.0]})
    data = psm.SessionData.from_frame(frame, therapist=None)
    with pytest.raises(psm.errors.DataError, match=r"'y0' differs between the sessions of 1 patients: 1\."):
        psm.early_response(data, "y", by=2, threshold=1, baseline="y0")


def test_percentages_are_of_scores_from_zero_on():
    frame = pd.DataFrame({"patient": [1, 1, 2, 2], "session": [1, 2, 1, 2], "y": [0.0, 0.0, 4.0, 1.0]})
    data = psm.SessionData.from_frame(frame, therapist=None)
    found = psm.early_response(data, "y", by=2, percent=50)["responded"]
    assert found.isna().tolist() == [True, False]  # no change from zero is no response of 50 %
    assert found[2]
    below = psm.SessionData.from_frame(frame.assign(y=frame["y"] - 2), therapist=None)
    for detect in (
        lambda **percent: psm.early_response(below, "y", by=2, threshold=1, **percent),
        lambda **percent: psm.sudden_gains(below, "y", cutoff=1, **percent),
    ):
        with pytest.raises(psm.DataError, match=r"3 values of 'y' lie below zero \(patients 1, 2\)"):
            detect(percent=25.0)
    assert psm.early_response(below, "y", by=2, threshold=1)["responded"].tolist() == [False, True]
    assert psm.sudden_gains(below, "y", cutoff=1, percent=0).empty

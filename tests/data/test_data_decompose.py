"""Decomposition and lags: known values, and what holds for every table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psymech.data.decompose import decompose, split
from psymech.data.lags import FIRST, GAP, MISSING, lag, lag_counts, lag_reasons
from psymech.data.sessions import SessionData
from psymech.errors import SpecError

SUM_ERROR = 1e-12  # relative to the largest value: two subtractions and two additions of float64

values_of = st.floats(-1e6, 1e6, allow_nan=False, width=64)


@st.composite
def tables(draw, with_missing=False):
    """A ragged table: therapists, patients under them, sessions with gaps."""
    n_patients = draw(st.integers(1, 6))
    therapist = draw(st.lists(st.integers(0, 3), min_size=n_patients, max_size=n_patients))
    rows = []
    for patient in range(n_patients):
        sessions = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
        for session in sessions:
            value = draw(st.one_of(values_of, st.none()) if with_missing else values_of)
            rows.append((therapist[patient], patient, session, value))
    order = draw(st.permutations(range(len(rows))))
    frame = pd.DataFrame([rows[i] for i in order], columns=["therapist", "patient", "session", "x"])
    return frame.astype({"x": float})


def read(frame: pd.DataFrame, **options) -> SessionData:
    return SessionData.from_frame(frame, ranges={"x": None}, **options)


@given(tables(), st.sampled_from(["sessions", "patients"]), st.booleans())
def test_parts_sum_to_the_variable(frame, weights, two_levels):
    data = read(frame, therapist=None if two_levels else "therapist")
    parts = decompose(data, "x", weights=weights)
    assert list(parts) == ["x.within", "x.patient"] + ([] if two_levels else ["x.therapist"])
    scale = max(1.0, np.abs(frame["x"]).max())
    np.testing.assert_allclose(parts.sum(axis=1), data.values("x"), rtol=0, atol=SUM_ERROR * scale)


@given(tables())
def test_parts_live_at_their_level(frame):
    data = read(frame)
    parts = split(data.values("x"), data)
    scale = max(1.0, np.abs(frame["x"]).max())
    for unit in range(data.n_patients):
        rows = data.codes["patient"] == unit
        assert abs(parts.parts["within"][rows].sum()) <= SUM_ERROR * scale * rows.sum()
        assert np.ptp(parts.parts["patient"][rows]) == 0
    for unit in range(data.n_therapists):
        rows = data.codes["therapist"] == unit
        assert np.ptp(parts.parts["therapist"][rows]) == 0
        assert abs(parts.parts["patient"][rows].sum()) <= SUM_ERROR * scale * rows.sum()


FRAME = pd.DataFrame(
    {
        "therapist": ["A"] * 5 + ["B"] * 2,
        "patient": [1, 1, 1, 2, 2, 3, 3],
        "session": [1, 2, 4, 1, 2, 3, 4],
        "x": [1.0, 2.0, 6.0, 8.0, 10.0, 4.0, 6.0],
    }
)


def test_therapist_means_by_sessions_and_by_patients():
    data = read(FRAME)
    assert split(data.values("x"), data).means["therapist"].tolist() == [27 / 5, 5.0]
    by_patients = split(data.values("x"), data, weights="patients")
    assert by_patients.means["therapist"].tolist() == [6.0, 5.0]
    assert by_patients.means["patient"].tolist() == [3.0, 9.0, 5.0]
    assert by_patients.parts["patient"].tolist() == [-3, -3, -3, 3, 3, 0, 0]


def test_missing_values_are_left_out_of_means():
    data = read(FRAME.assign(x=[1.0, np.nan, 6.0, 8.0, 10.0, np.nan, np.nan]))
    result = split(data.values("x"), data)
    np.testing.assert_array_equal(result.means["patient"], [3.5, 9.0, np.nan])
    np.testing.assert_array_equal(np.isnan(result.parts["within"]), np.isnan(data.values("x")))


def test_crossed_patients_sum_too():
    frame = FRAME.assign(patient=[1, 1, 1, 2, 2, 1, 1], session=[1, 2, 4, 1, 2, 5, 6])
    data = read(frame, patient_ids="crossed")
    parts = decompose(data, "x")
    np.testing.assert_allclose(parts.sum(axis=1), data.values("x"), rtol=0, atol=SUM_ERROR * 10)
    mine = data.codes["patient"] == 0
    np.testing.assert_allclose(parts["x.within"][mine] + 19 / 5, data.values("x")[mine])


def test_unit_columns_have_no_within_part():
    data = read(FRAME, patients=pd.DataFrame({"patient": [1, 2, 3], "age": [30, 40, 50]}))
    assert np.abs(decompose(data, "age")["age.within"]).max() == 0


def test_split_refuses_other_shapes_and_weights():
    data = read(FRAME)
    with pytest.raises(SpecError, match="Expected 7 values"):
        split(np.ones(3), data)
    with pytest.raises(SpecError, match="sessions, patients"):
        split(np.ones(7), data, weights="therapists")  # pyright: ignore[reportArgumentType]


def test_lag_stops_at_first_sessions_and_gaps():
    data = read(FRAME)
    x = data.values("x")
    np.testing.assert_array_equal(lag(x, data), [np.nan, 1, np.nan, np.nan, 8, np.nan, 4])
    np.testing.assert_array_equal(lag(x, data, 2), [np.nan, np.nan, 2, np.nan, np.nan, np.nan, np.nan])
    assert lag_reasons(data, 1) == {FIRST: 3, GAP: 1}
    assert lag_reasons(data, 2) == {FIRST: 6, GAP: 0}


def test_lag_counts_missing_earlier_values():
    data = read(FRAME.assign(x=[1.0, np.nan, 6.0, np.nan, 10.0, 4.0, 6.0]))
    assert lag_counts(data.values("x"), data) == {FIRST: 3, GAP: 1, MISSING: 1}


@given(tables(with_missing=True), st.integers(0, 3))
def test_lag_never_crosses_patients_or_gaps(frame, steps):
    data = read(frame)
    x = data.values("x")
    patient, session = data.codes["patient"], data.session
    known = {(p, s): v for p, s, v in zip(patient.tolist(), session.tolist(), x, strict=True)}
    expected = [known.get((p, s - steps), np.nan) for p, s in zip(patient.tolist(), session.tolist(), strict=True)]
    np.testing.assert_array_equal(lag(x, data, steps), expected)
    counts = lag_counts(x, data, steps)
    assert sum(counts.values()) == np.isnan(lag(x, data, steps)).sum()


@pytest.mark.parametrize("steps", [-1, 1.0, True, "1"])
def test_lag_must_be_a_whole_number(steps):
    data = read(FRAME)
    with pytest.raises(SpecError, match="whole number of sessions"):
        lag(data.values("x"), data, steps)


@given(tables(with_missing=True), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(frame, random):
    order = list(range(len(frame)))
    random.shuffle(order)
    one, other = read(frame), read(frame.iloc[order].reset_index(drop=True))
    pd.testing.assert_frame_equal(one.sessions, other.sessions)
    for level in one.levels:
        np.testing.assert_array_equal(one.ids[level], other.ids[level])
        np.testing.assert_array_equal(one.codes[level], other.codes[level])
    np.testing.assert_array_equal(one.parents["patient"], other.parents["patient"])
    assert one.source_row.tolist() == [order[row] for row in other.source_row]

"""SessionData: order, nesting, roles, sessions and times, values and levels."""

import numpy as np
import pandas as pd
import pytest

from psymech.data.sessions import SessionData
from psymech.errors import DataError


def table(**changes) -> pd.DataFrame:
    base = {
        "clinic": ["y", "y", "y", "x", "x", "x"],
        "therapist": ["B", "B", "B", "A", "A", "C"],
        "patient": [2, 2, 10, 7, 7, 1],
        "session": [2, 1, 1, 1, 3, 4],
        "mood": [5.0, 6.0, 7.0, 8.0, np.nan, 9.0],
        "age": [30, 30, 40, 50, 50, 60],
        "word": ["a", None, "b", "c", "d", "e"],
    }
    return pd.DataFrame({**base, **changes})


def test_rows_are_sorted_by_clinic_therapist_patient_and_session():
    data = SessionData.from_frame(table(), clinic="clinic")
    assert data.levels == ("patient", "therapist", "clinic")
    assert data.ids["patient"].tolist() == [1, 2, 7, 10]
    assert data.ids["therapist"].tolist() == ["A", "B", "C"]
    assert data.source_row.tolist() == [3, 4, 5, 1, 0, 2]
    assert data.sessions["therapist"].tolist() == ["A", "A", "C", "B", "B", "B"]
    assert data.session.tolist() == [1, 3, 4, 1, 2, 1]
    assert data.time is not None and data.time.tolist() == data.session.tolist()
    assert data.parents["patient"].tolist() == [2, 1, 0, 1]
    assert data.parents["therapist"].tolist() == [0, 1, 0]
    assert data.sessions.index.tolist() == list(range(6))
    assert data.source_line is None


def test_two_levels_have_no_therapist():
    data = SessionData.from_frame(table(), therapist=None)
    assert data.levels == ("patient",)
    assert data.n_therapists == 0 and dict(data.parents) == {}
    with pytest.raises(DataError, match="no therapist level"):
        data.n_units("therapist")


def test_values_are_numbers_and_booleans_are_zero_and_one():
    data = SessionData.from_frame(table(flag=[True, False, True, True, False, False]))
    np.testing.assert_array_equal(data.values("mood"), [8, np.nan, 6, 5, 7, 9])
    assert data.values("flag").tolist() == [1, 0, 0, 1, 1, 0]
    assert data.values("session") is data.session
    assert data.sessions["word"].dtype == object
    assert data.sessions["word"].tolist() == ["c", "d", None, "a", "b", "e"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modd", r"no column 'modd'. Did you mean 'mood'\?"),
        ("zzz", "The columns are: mood, age, word"),
        ("word", r"5 of 6 cells are text: 'c', 'd', 'a' at row 0, 2, 3, 4, 5 \(counted from 0\), patient"),
        ("patient", "holds ids"),
    ],
)
def test_values_that_cannot_be_had(name, message):
    data = SessionData.from_frame(table().drop(columns="clinic"))
    with pytest.raises(DataError, match=message):
        data.values(name)


@pytest.mark.parametrize(
    ("name", "level"), [("mood", "session"), ("age", "patient"), ("skill", "therapist"), ("one", None)]
)
def test_the_level_at_which_a_column_varies(name, level):
    frame = table(skill=[1, 1, 1, 2, 2, 3], one=[1, 1, 1, 1, 1, 1])
    assert SessionData.from_frame(frame).varies_at(name) == level


def test_missing_cells_do_not_count_as_variation():
    data = SessionData.from_frame(table(age=[30, np.nan, 40, 50, 50, 60]))
    assert data.varies_at("age") == "patient"


def test_absent_role_suggests_names():
    with pytest.raises(DataError, match=r"therapist needs a column.*'therapists'.*therapist=None"):
        SessionData.from_frame(table().rename(columns={"therapist": "therapists"}))
    with pytest.raises(DataError, match="pass patient='client'"):
        SessionData.from_frame(table().rename(columns={"patient": "client"}))
    with pytest.raises(DataError, match="reset_index"):
        SessionData.from_frame(table().set_index("patient"))
    with pytest.raises(DataError, match="given for patient and session"):
        SessionData.from_frame(table(), patient="session")


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ([2, 1, 1, 1, -3, 4], r"not be negative.*-3 at row 4.*patient 7"),
        ([2, 1, 1, 1, 2.5, 4], "whole numbers"),
        ([2, 1, 1, 1, np.nan, 4], r"missing .* patient 7"),
        ([2, 1, 1, 1, np.inf, 4], "finite"),
        ([2, 1, 1, 1, 20250115, 4], "20250115"),
        ([2, 1, 1, 1, 999, 4], "999 at row 4"),
        (["s2", "s1", "s1", "s1", "s3", "s4"], r"session number\) must hold numbers"),
        (pd.date_range("2024-01-01", periods=6), "dates"),
        ([True, False, True, True, False, True], "must hold numbers"),
        ([1, 1, 1, 1, 3, 4], r"1 row repeats a session number.*patient 2"),
    ],
)
def test_sessions_are_refused(session, message):
    with pytest.raises(DataError, match=message):
        SessionData.from_frame(table(session=session))


def test_a_long_treatment_may_have_a_thousand_sessions():
    n = 1200
    frame = pd.DataFrame({"patient": [1] * n, "session": range(1, n + 1), "mood": np.arange(n)})
    assert SessionData.from_frame(frame, therapist=None).session.max() == n


def test_exact_duplicates_are_told_from_ties():
    twice = pd.concat([table(), table().iloc[[0, 3]]], ignore_index=True)
    with pytest.raises(DataError, match=r"2 duplicate rows.*row 6, 7.*patient 2, 7"):
        SessionData.from_frame(twice)


@pytest.mark.parametrize("time", [["a"] * 6, [1, 2, 3, 4, np.nan, 6], pd.date_range("2024-01-01", periods=6)])
def test_time_must_be_numbers(time):
    with pytest.raises(DataError, match="time"):
        SessionData.from_frame(table(week=time), time="week")


def test_time_may_be_fractional_and_negative():
    data = SessionData.from_frame(table(week=[1.5, -2.0, 0.0, 1.0, 2.0, 3.0]), time="week")
    assert data.time.tolist() == [1.0, 2.0, -2.0, 1.5, 0.0, 3.0]
    assert data.values("week") is data.time
    assert "week" not in data.column_names


REUSED = {"patient": [1, 1, 2, 1, 1, 2]}


def test_a_patient_under_two_therapists_is_refused_unless_said():
    with pytest.raises(
        DataError, match=r"2 of 2 patient ids.*several therapists.*patient 1 is under therapist A, B.*nested"
    ):
        SessionData.from_frame(table(**REUSED))


def test_nested_ids_carry_the_therapist():
    data = SessionData.from_frame(table(**REUSED), patient_ids="nested")
    assert data.ids["patient"].tolist() == ["A/1", "B/1", "B/2", "C/2"]
    assert data.ids["therapist"][data.parents["patient"]].tolist() == ["A", "B", "B", "C"]


def test_nested_ids_that_would_merge_are_refused():
    frame = table(therapist=["a", "a", "a", "a/b", "a/b", "a/b"], patient=["b/c", "b/c", "x", "c", "c", "d"])
    with pytest.raises(DataError, match="would merge"):
        SessionData.from_frame(frame, patient_ids="nested")


def test_crossed_patients_have_no_parent():
    frame = table(patient=[1, 1, 2, 1, 1, 2], session=[2, 1, 1, 3, 4, 4])
    data = SessionData.from_frame(frame, patient_ids="crossed")
    assert data.patient_ids == "crossed" and "patient" not in data.parents
    assert data.n_patients == 2
    assert [note.code for note in data.notes] == ["patients-crossed"]


def test_crossed_patients_still_have_each_session_once():
    with pytest.raises(DataError, match="repeat"):
        SessionData.from_frame(table(**REUSED), patient_ids="crossed")


def test_declared_crossed_but_nested_is_nested():
    data = SessionData.from_frame(table(), patient_ids="crossed")
    assert data.patient_ids == "unique" and "patient" in data.parents


def test_a_therapist_in_two_clinics_is_refused():
    with pytest.raises(DataError, match=r"therapist ids.*several clinics"):
        SessionData.from_frame(table(clinic=["y", "y", "x", "x", "x", "x"]), clinic="clinic")


def test_unknown_patient_ids_option():
    with pytest.raises(DataError, match="unique, nested, crossed"):
        SessionData.from_frame(table(), patient_ids="both")  # pyright: ignore[reportArgumentType]


def test_infinite_values_are_refused_with_row_and_patient():
    with pytest.raises(DataError, match=r"'mood' must hold finite numbers.*'inf' at row 4.*patient 7"):
        SessionData.from_frame(table(mood=[5.0, 6.0, 7.0, 8.0, np.inf, 9.0]))


def test_repr_is_short_and_names_nobody():
    text = repr(SessionData.from_frame(table(patient=["Zoe", "Zoe", "Max", "Eva", "Eva", "Tom"])))
    assert text == "SessionData(6 sessions, 4 patients, 3 therapists; columns: clinic, mood, age, word)"


def test_the_given_table_is_left_alone():
    frame = table()
    before = frame.copy(deep=True)
    SessionData.from_frame(frame, clinic="clinic")
    pd.testing.assert_frame_equal(frame, before)

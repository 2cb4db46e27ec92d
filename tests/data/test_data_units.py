"""Tables with one row a patient or a therapist."""

import numpy as np
import pandas as pd
import pytest

from psymech.data.sessions import SessionData
from psymech.errors import DataError

SESSIONS = pd.DataFrame(
    {
        "therapist": ["B", "B", "A", "A", "A"],
        "patient": [3, 3, 1, 1, 2],
        "session": [1, 2, 1, 2, 1],
        "mood": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)


def patients(**changes) -> pd.DataFrame:
    return pd.DataFrame({"patient": [2, 1, 3], "severity": [20.0, 10.0, 30.0], "word": ["b", "a", "c"], **changes})


def test_units_are_aligned_and_repeated_for_each_session():
    therapists = pd.DataFrame({"therapist": ["A", "B"], "years": [5, 7]})
    data = SessionData.from_frame(SESSIONS, patients=patients(), therapists=therapists)
    assert data.units["patient"]["severity"].tolist() == [10, 20, 30]
    assert data.values("severity").tolist() == [10, 10, 20, 30, 30]
    assert data.values("years").tolist() == [5, 5, 5, 7, 7]
    assert (data.home("severity"), data.home("years"), data.home("mood")) == ("patient", "therapist", "session")
    assert data.column_names == ("mood", "severity", "word", "years")
    assert (data.varies_at("severity"), data.varies_at("years")) == ("patient", "therapist")
    assert data.notes == ()
    with pytest.raises(DataError, match=r"'word' must hold numbers.*patient 1, 2, 3"):
        data.values("word")


def test_ids_match_across_types_but_leading_zeros_differ():
    data = SessionData.from_frame(SESSIONS, patients=patients(patient=["2", "1", "3"]))
    assert data.units["patient"]["severity"].tolist() == [10, 20, 30]
    data = SessionData.from_frame(SESSIONS, patients=patients(patient=["02", "1", "3"]))
    assert np.isnan(data.units["patient"]["severity"][1])


def test_units_without_partner_are_counted():
    data = SessionData.from_frame(SESSIONS, patients=patients(patient=[2, 8, 9]))
    assert [(note.severity, note.code, note.ids) for note in data.notes] == [
        ("note", "units-without-sessions", ("8", "9")),
        ("warning", "units-missing", ("1", "3")),
    ]
    np.testing.assert_array_equal(data.units["patient"]["severity"], [np.nan, 20, np.nan])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (patients(patient=[1, 1, 3]), r"one row a patient.*duplicate\): 1"),
        (patients().rename(columns={"patient": "patients"}), "Did you mean 'patients'"),
        (patients(mood=[1, 2, 3]), "both in the patient table and in the session table"),
        (patients(phq9=[1, 2, 40]), r"'phq9' must lie in the range.*patient 3"),
        (patients(severity=[1, np.inf, 2]), r"finite.*patient 1"),
        (patients(therapist=["A", "B", "B"]), r"another therapist.*: 1\."),
        (patients(patient=[1, None, 3]), "missing"),
    ],
)
def test_unit_tables_are_checked(table, message):
    with pytest.raises(DataError, match=message):
        SessionData.from_frame(SESSIONS, patients=table)


def test_the_same_column_in_two_unit_tables_is_refused():
    therapists = pd.DataFrame({"therapist": ["A", "B"], "severity": [5, 7]})
    with pytest.raises(DataError, match="both in the therapist table and in the patient table"):
        SessionData.from_frame(SESSIONS, patients=patients(), therapists=therapists)


def test_a_table_for_an_absent_level_is_refused():
    with pytest.raises(DataError, match="no therapist level"):
        SessionData.from_frame(SESSIONS, therapist=None, therapists=pd.DataFrame({"therapist": ["A"]}))


def test_nested_patients_need_the_therapist_in_their_table():
    sessions = SESSIONS.assign(patient=[1, 1, 1, 1, 2])
    table = pd.DataFrame({"therapist": ["A", "A", "B"], "patient": [1, 2, 1], "severity": [1.0, 2.0, 3.0]})
    data = SessionData.from_frame(sessions, patients=table, patient_ids="nested")
    assert dict(zip(data.ids["patient"], data.units["patient"]["severity"], strict=True)) == {
        "A/1": 1,
        "A/2": 2,
        "B/1": 3,
    }
    with pytest.raises(DataError, match="needs the column 'therapist' in the patient table"):
        SessionData.from_frame(sessions, patients=table.drop(columns="therapist"), patient_ids="nested")


def test_identifiers_are_dropped_from_unit_tables_too():
    data = SessionData.from_frame(SESSIONS, patients=patients(email=["a@b.org", "c@d.org", "e@f.org"]))
    assert "email" not in data.units["patient"].columns
    assert [note.code for note in data.notes] == ["column-identifying"]

"""Ids stay exact whatever the table, and nothing merges or splits people in silence."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psymech.data.ids import AMBIGUOUS, MAX_ID_LENGTH, MISSING_WORDS
from psymech.data.sessions import SessionData
from psymech.errors import DataError

BIG = 2**53
INT64 = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12).filter(lambda text: text.strip() == text)


def columns(patients: list) -> dict:
    n = len(patients)
    return {"patient": patients, "session": [1] * n, "mood": [float(i) for i in range(n)]}


def frames(table: dict) -> dict:
    """The same table in every kind of frame that is installed."""
    pl = pytest.importorskip("polars")
    pa = pytest.importorskip("pyarrow")
    duckdb = pytest.importorskip("duckdb")
    arrow = pa.table(table)
    return {
        "pandas": pd.DataFrame(table),
        "polars": pl.DataFrame(table),
        "lazy": pl.DataFrame(table).lazy(),
        "pyarrow": arrow,
        "duckdb": duckdb.from_arrow(arrow),
    }


@given(st.lists(INT64, min_size=1, max_size=8, unique=True))
def test_integers_are_exact_in_every_kind_of_table(patients):
    for kind, frame in frames(columns(patients)).items():
        data = SessionData.from_frame(frame, therapist=None)
        assert data.ids["patient"].dtype == np.int64, kind
        assert data.ids["patient"].tolist() == sorted(patients), kind
        whose = data.ids["patient"][data.codes["patient"]].tolist()
        assert dict(zip(whose, data.values("mood"), strict=True)) == {p: float(i) for i, p in enumerate(patients)}


@given(st.lists(WORDS, min_size=1, max_size=8, unique=True))
def test_text_is_exact_in_every_kind_of_table(patients):
    composed = [unicodedata.normalize("NFC", patient) for patient in patients]
    if len(set(composed)) < len(composed) or AMBIGUOUS & set(composed):
        return
    if MISSING_WORDS & {patient.casefold() for patient in composed}:
        return
    for kind, frame in frames(columns(patients)).items():
        data = SessionData.from_frame(frame, therapist=None)
        assert data.ids["patient"].tolist() == sorted(composed), kind


def test_integers_beyond_int64_are_exact():
    data = SessionData.from_frame(pd.DataFrame(columns([2**64 - 1, 2**64 - 2])), therapist=None)
    assert data.ids["patient"].dtype == np.uint64
    assert data.ids["patient"].tolist() == [2**64 - 2, 2**64 - 1]
    huge = pd.DataFrame({**columns([0, 1]), "patient": pd.Series([2**70, 2**70 + 1], dtype=object)})
    assert SessionData.from_frame(huge, therapist=None).ids["patient"].tolist() == [str(2**70), str(2**70 + 1)]


def test_nullable_integers_and_categories_are_exact():
    ids = [BIG + 1, BIG + 2, BIG + 3]
    frame = pd.DataFrame(columns(ids))
    for patient in (frame["patient"].astype("Int64"), frame["patient"].astype("category")):
        data = SessionData.from_frame(frame.assign(patient=patient), therapist=None)
        assert data.ids["patient"].tolist() == ids


def test_whole_floats_come_back_as_integers():
    data = SessionData.from_frame(pd.DataFrame(columns([1.0, 20.0, 3.0])), therapist=None)
    assert data.ids["patient"].dtype == np.int64
    assert data.ids["patient"].tolist() == [1, 3, 20]


def test_leading_zeros_keep_two_people_apart():
    data = SessionData.from_frame(pd.DataFrame(columns(["007", "7", "8"])), therapist=None)
    assert data.ids["patient"].tolist() == ["007", "7", "8"]
    assert [note.code for note in data.notes] == ["ids-differ-by-zeros"]


def test_space_and_unicode_forms_are_one_person_and_said():
    frame = pd.DataFrame({"patient": ["José", "Jose\u0301", " José"], "session": [1, 2, 3], "mood": [1.0, 2.0, 3.0]})
    data = SessionData.from_frame(frame, therapist=None)
    assert data.ids["patient"].tolist() == ["José"]
    assert [note.code for note in data.notes] == ["ids-trimmed", "ids-composed"]
    assert all("José" in note.message for note in data.notes)


def test_case_is_kept_and_warned_about():
    data = SessionData.from_frame(pd.DataFrame(columns(["Ab", "ab", "c"])), therapist=None)
    assert data.n_patients == 3
    assert [(note.severity, note.code) for note in data.notes] == [("warning", "ids-differ-by-case")]


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        (["a", None, "b"], r"patient id .* missing .* row 1 \(counted from 0\)"),
        (["a", "  ", "b"], "missing"),
        ([1.0, float("nan"), 2.0], "missing"),
        ([float(BIG), 3.0, 4.0], r"not exact from 2\*\*53 on"),
        ([1.5, 2.0, 3.0], "not whole numbers"),
        (["a", "NA", "b"], "may be a missing id or the initials"),
        (["a", "null", "b"], "may be a missing id"),
        ([True, False, True], "true/false"),
        (pd.date_range("2020-01-01", periods=3), "dates"),
        (["a", "b\x07", "c"], "control or non-printable"),
        (["a", "b\u200bc", "d"], "control or non-printable"),
        (["a", "x" * (MAX_ID_LENGTH + 1), "b"], "201 characters"),
        (["a", "1.23457E+17", "b"], "scientific notation"),
        (pd.Series(["7", 7, "a"], dtype=object), "both as a number and as text"),
    ],
)
def test_doubtful_ids_are_refused(patients, message):
    frame = pd.DataFrame({"patient": patients, "session": [1, 2, 3], "mood": [1.0, 2.0, 3.0]})
    with pytest.raises(DataError, match=message):
        SessionData.from_frame(frame, therapist=None)


def test_longest_id_is_taken():
    data = SessionData.from_frame(pd.DataFrame(columns(["x" * MAX_ID_LENGTH, "y"])), therapist=None)
    assert data.n_patients == 2


def test_a_message_shows_five_ids_at_most_and_no_other_cell():
    frame = pd.DataFrame({"patient": [f"P{i}" for i in range(9)], "session": [-1] * 9, "secret": ["hush"] * 9})
    with pytest.raises(DataError) as caught:
        SessionData.from_frame(frame, therapist=None)
    text = str(caught.value)
    assert "P4 and 4 more" in text
    assert "P5" not in text and "hush" not in text

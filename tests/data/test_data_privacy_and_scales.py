"""Columns that name people are dropped and said; impossible values are refused."""

import numpy as np
import pandas as pd
import pytest

from psymech.data.privacy import is_nhs_number
from psymech.data.scales import SCALES, known_range
from psymech.data.sessions import SessionData
from psymech.errors import DataError

N = 12


def table(**changes) -> pd.DataFrame:
    base = {"patient": np.repeat(np.arange(4), 3), "session": np.tile([1, 2, 3], 4), "mood": np.arange(N, dtype=float)}
    return pd.DataFrame({**base, **changes})


def read(ranges=None, **changes) -> SessionData:
    return SessionData.from_frame(table(**changes), therapist=None, ranges=ranges)


NAMING = (
    "name|First Name|lastName|date_of_birth|DOB|patientDateOfBirth|E-Mail|phone|Home Address|post_code|nhs_number|SSN|"
    "Vorname|geburtsdatum|prenom|client_surname"
)


@pytest.mark.parametrize("name", NAMING.split("|"))
def test_a_column_that_names_people_is_dropped_and_said(name):
    data = read(**{name: [f"secret{i}" for i in range(N)]})
    assert name not in data.sessions.columns
    (note,) = data.notes
    assert (note.severity, note.code, note.column) == ("note", "column-identifying", name)
    assert name in note.message and "identif" in note.message and "secret" not in str(note)
    with pytest.raises(DataError, match="dropped because it looks like a direct identifier"):
        data.values(name)


@pytest.mark.parametrize(
    "cells",
    [
        ["x", "a.b@example.org"] * 6,
        [f"SW1A {i % 10}AA" for i in range(N)],
        [f"+44 20 7946 {i:04d}" for i in range(N)],
        [number for number in map(str, range(9434760000, 9434770000)) if is_nhs_number(number)][:N],
    ],
)
def test_a_column_of_addresses_or_numbers_is_dropped(cells):
    data = read(code=cells)
    assert "code" not in data.sessions.columns
    assert [note.code for note in data.notes] == ["column-identifying"]


@pytest.mark.parametrize("name", ["email_contacts", "rename", "unnamed_score", "namely", "phone_sessions", "mobility"])
def test_an_innocent_column_stays(name):
    data = read(**{name: np.arange(N)})
    assert data.notes == ()
    assert data.values(name).tolist() == list(range(N))


def test_ids_that_name_people_are_warned_about_without_showing_them():
    frame = table(patient=np.repeat([f"p{i}@example.org" for i in range(4)], 3))
    (note,) = SessionData.from_frame(frame, therapist=None).notes
    assert (note.severity, note.code) == ("warning", "ids-identifying")
    assert "@" not in str(note)


def test_check_digit_of_nhs_numbers():
    assert is_nhs_number("9434765919") and is_nhs_number("943 476 5919")
    assert not any(map(is_nhs_number, ("9434765918", "943476591", "94347659190", "abcdefghij")))


def test_known_scales_have_sane_ranges():
    assert all(low < high for low, high in SCALES.values())
    assert known_range("PHQ-9") == known_range("phq9_pre") == known_range("pre_phq_9_total") == (0, 27)
    assert known_range("bdi_t2") == (0, 63)
    assert known_range("mood") is None and known_range("phq9_centred") is None


def test_a_value_outside_a_known_scale_is_refused():
    with pytest.raises(
        DataError, match=r"'phq9' must lie in the range 0 to 27.*are 34, -2 at row 4, 8.*patient 1, 2.*ranges"
    ):
        read(phq9=[0.0, 1, 2, 3, 34, 5, 6, 7, -2, 9, 10, np.nan])


def test_the_ends_of_a_scale_belong_to_it():
    assert read(phq9=[0.0, 27] * 6).values("phq9").max() == 27


def test_stated_ranges_replace_known_ones():
    scores = np.linspace(0, 54, N)
    assert read(phq9=scores, ranges={"phq9": (0, 54)}).values("phq9").max() == 54
    assert read(phq9=scores, ranges={"phq9": None}).values("phq9").max() == 54
    with pytest.raises(DataError, match=r"'mood' must lie in the range 0 to 5 \(stated in ranges\)"):
        read(ranges={"mood": (0, 5)})


@pytest.mark.parametrize(
    ("ranges", "message"),
    [({"mod": (0, 1)}, "Did you mean 'mood'"), ({"mood": (5, 1)}, "lowest"), ({"mood": 3}, "lowest")],
)
def test_ranges_must_make_sense(ranges, message):
    with pytest.raises(DataError, match=message):
        read(ranges=ranges)


@pytest.mark.parametrize("code", [-99, 999, -9, 9999])
def test_codes_for_missing_values_are_refused_when_used(code):
    data = read(alliance=[1.0, 2, 3, 4, 5, code, 1, 2, 3, 4, 5, 1])
    assert [note.code for note in data.notes] == ["missing-codes"]
    assert data.values("mood").tolist() == list(range(N))
    with pytest.raises(DataError, match=rf"'alliance' must hold measurements.*{code} at row 5.*patient 1.*ranges"):
        data.values("alliance")


def test_a_code_that_may_be_a_value_is_kept():
    assert read(change=[-9.0, -8, 3, 4, -5, 2, 1, 2, 3, 4, 5, 1]).values("change").min() == -9
    assert read(weight=[60.0, 70, 80, 99, 65, 75, 85, 55, 66, 77, 88, 90]).values("weight").max() == 99
    assert read(minutes=[0.0] * 11 + [99], ranges={"minutes": None}).values("minutes").max() == 99

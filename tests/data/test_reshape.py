"""Wide tables, SPSS files and long tables to one row a session."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import psymech as psm

WIDE = pd.DataFrame(
    {
        "patient": ["007", "7", "8"],
        "therapist": ["01", "1", "1"],
        "bdi_1": [20, 31, 12],
        "bdi_3": [14, None, 10],
        "wai_1": [5.0, 4.0, None],
        "age": [30, 41, 52],
    }
)
BOTH = {"bdi": "bdi_{session}", "wai": "wai_{session}"}


def test_wide_becomes_one_row_a_session_with_values_in_their_place() -> None:
    long = psm.read_wide(WIDE, measures=BOTH)
    expected = pd.DataFrame(
        {
            "patient": ["007", "007", "7", "8", "8"],
            "session": [1, 3, 1, 1, 3],
            "bdi": [20.0, 14.0, 31.0, 12.0, 10.0],
            "wai": [5.0, np.nan, 4.0, np.nan, np.nan],
            "therapist": ["01", "01", "1", "1", "1"],
            "age": [30.0, 30.0, 41.0, 52.0, 52.0],
        }
    )
    assert_frame_equal(long, expected, check_dtype=False)


def test_sessions_and_patients_left_out_are_said_and_reach_the_findings() -> None:
    table = pd.concat([WIDE, pd.DataFrame({"patient": ["9"], "therapist": ["1"]})], ignore_index=True)
    data = psm.SessionData.from_frame(psm.read_wide(table, measures=BOTH))
    said = {note.code: note.message for note in data.notes}
    assert "4 patients x 2 sessions; 3 without a value" in said["sessions-empty"]
    assert said["patients-empty"].endswith("no row: 9.")
    assert "3 without a value" in str(data.notes)


def test_listed_columns_take_their_numbers_from_sessions() -> None:
    long = psm.read_wide(WIDE, measures={"bdi": ["bdi_3", "bdi_1"]}, sessions=[9, 2], keep=["age"])
    assert long[long["patient"] == "007"]["session"].tolist() == [2, 9]
    assert long[long["patient"] == "007"]["bdi"].tolist() == [20.0, 14.0]
    assert list(long) == ["patient", "session", "bdi", "age"]


def test_a_wide_csv_keeps_leading_zeros(tmp_path) -> None:
    path = tmp_path / "wide.csv"
    WIDE.to_csv(path, index=False)
    long = psm.read_wide(path, measures=BOTH)
    assert long["patient"].unique().tolist() == ["007", "7", "8"]
    assert long["therapist"].unique().tolist() == ["01", "1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measures": {"bdi": "bdi_{session}x"}}, ["No column fits the pattern 'bdi_{session}x'"]),
        ({"measures": {"bdi": "bdi_1"}}, ["pattern with {session} in it once", "'bdi_1'"]),
        ({"measures": {}}, ["at least one measure"]),
        ({"measures": {"bdi": ["bdi_1", "bdi_2"]}}, ["no column 'bdi_2'", "bdi_1"]),
        ({"measures": {"bdi": ["bdi_1", "bdi_3"]}, "sessions": [1]}, ["lists 2 columns", "1 different"]),
        ({"measures": {"a": ["bdi_1"], "b": ["bdi_1"]}}, ["'bdi_1' is claimed twice"]),
        ({"patient": "client"}, ["no column 'client'"]),
        ({"patient": "therapist"}, ["one row a patient", "read_long", ": 1."]),
        ({"session": "age"}, ["'age' is a column of the table already"]),
        ({"session": "bdi"}, ["'bdi' is the name of a measure"]),
        ({"measures": {"age": ["bdi_1"]}}, ["'age' is both a measure and another column"]),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(psm.DataError) as problem:
        psm.read_wide(WIDE, **(dict[str, Any](measures=BOTH) | change))
    assert all(word in str(problem.value) for word in words), str(problem.value)


def test_two_columns_for_one_session_are_refused() -> None:
    with pytest.raises(psm.DataError, match="'bdi_1' and 'bdi_01' both stand for session 1"):
        psm.read_wide(WIDE.assign(bdi_01=1), measures=BOTH)


def test_text_in_a_measure_is_refused_with_the_cell() -> None:
    with pytest.raises(psm.DataError, match=r"'bdi_1' is to be a measure and must hold numbers, but .* 14,5"):
        psm.read_wide(WIDE.assign(bdi_1=["14,5", "3", "2"]), measures=BOTH)


@given(st.lists(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=3, max_size=3), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_every_value_of_a_wide_table_is_found_again(cells: list[list[float | None]]) -> None:
    values = np.array(cells, dtype=float)
    wide = pd.DataFrame(values, columns=["m1", "m2", "m3"]).assign(patient=[f"P{row}" for row in range(len(cells))])
    long = psm.read_wide(wide, measures={"m": "m{session}"})
    back = np.full(values.shape, np.nan)
    back[[int(name[1:]) for name in long["patient"]], long["session"] - 1] = long["m"]
    np.testing.assert_array_equal(back, values)


def test_a_long_table_has_exact_ids_and_parsed_numbers(tmp_path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("patient,mood,note\n007,3.5,fine\n7,NA,\n", encoding="utf-8")
    frame = psm.read_long(path, ids=["patient"])
    assert frame["patient"].tolist() == ["007", "7"]
    assert frame["mood"].iloc[0] == 3.5 and np.isnan(frame["mood"].iloc[1])
    assert frame["note"].tolist() == ["fine", None]
    with pytest.raises(psm.DataError, match="no column 'client'"):
        psm.read_long(path, ids=["client"])


def test_an_spss_file_comes_with_its_labels_and_user_missing_as_missing(tmp_path) -> None:
    pyreadstat = pytest.importorskip("pyreadstat")
    path = tmp_path / "study.sav"
    pyreadstat.write_sav(
        pd.DataFrame({"patient": ["007", "8"], "wai1": [4.0, 99.0]}),
        str(path),
        column_labels={"wai1": "We agree on goals"},
        variable_value_labels={"wai1": {4.0: "often"}},
        missing_ranges={"wai1": [99]},
    )
    frame = psm.read_spss(path, ids=["patient"])
    assert frame["patient"].tolist() == ["007", "8"]
    assert frame["wai1"].iloc[0] == 4 and np.isnan(frame["wai1"].iloc[1])
    assert frame.attrs["variable_labels"] == {"wai1": "We agree on goals"}
    assert frame.attrs["value_labels"] == {"wai1": {"4.0": "often"}}
    with pytest.raises(psm.DataError, match=r"expects a file of kind .\.sav."):
        psm.read_spss(tmp_path / "study.csv")


def test_a_table_that_looks_wide_is_told_how_to_be_read() -> None:
    wide = pd.DataFrame({"patient": ["a"], "therapist": ["b"], "phq_1": [1], "phq_2": [1], "phq_3": [1]})
    with pytest.raises(psm.DataError, match=r"psm.read_wide\(table, measures=\{'phq': 'phq_\{session\}'\}\)"):
        psm.SessionData.from_frame(wide)


def test_session_numbers_belong_to_listed_columns() -> None:
    """0.5 became session 0, and numbers beside a pattern were passed over."""
    with pytest.raises(psm.DataError, match=r"whole numbers from 0 on, but got 0\.5"):
        psm.read_wide(WIDE, measures={"bdi": ["bdi_3", "bdi_1"]}, sessions=[0.5, 1.5])  # pyright: ignore[reportArgumentType]
    with pytest.raises(psm.DataError, match="measures has patterns only"):
        psm.read_wide(WIDE, measures={"bdi": "bdi_{session}"}, sessions=[1, 2])

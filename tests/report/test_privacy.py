"""Nothing leaves the house under its own name: codes, small groups, notes, cells for spreadsheets, the key."""

import csv
import json
import stat

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from psymech import names
from psymech.errors import SpecError
from psymech.reporting.privacy import mask, printable, safe_cell, shown_findings, without_ids, write_key
from tests.posterior.fitted_trees import make_tree


def uneven(sizes: list[int]) -> xr.DataTree:
    """A tree whose therapists have as many patients as said."""
    made = make_tree(n_therapists=len(sizes), patients_each=max(sizes), sessions_each=3, draws=25, chains=2)
    keep = np.concatenate([np.arange(n) + k * max(sizes) for k, n in enumerate(sizes)])
    data = made["constant_data"].to_dataset()
    rows = np.flatnonzero(np.isin(data["patient_of_obs"].values, keep))
    groups = {node.path: node.to_dataset(inherit=False) for node in made.subtree}
    groups = {path: ds.isel(obs=rows) if "obs" in ds.dims else ds for path, ds in groups.items()}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(made.attrs)
    return tree


def test_codes_replace_every_id_and_nothing_else_changes() -> None:
    tree = make_tree(n_therapists=9)
    masked = mask(tree, anonymize=True, min_patients=5, seed=1)
    text = json.dumps(
        masked.tree.to_dict(),
        default=lambda each: np.asarray(each["data"]).tolist() if isinstance(each, dict) else str(each),
    )
    for label in tree["posterior"].dataset["patient"].values.tolist():
        assert label not in text
    np.testing.assert_array_equal(
        masked.tree["posterior"].dataset["u_therapist"].values, tree["posterior"].dataset["u_therapist"].values
    )
    assert sorted(masked.codes["therapist"].values()) == [f"T{i}" for i in range(1, 10)]
    assert tree["posterior"].dataset["therapist"].values[0] == "T001"  # the tree given is untouched


def test_codes_are_shuffled_and_differ_from_report_to_report() -> None:
    tree = make_tree(n_therapists=30, patients_each=1, sessions_each=2, draws=5)
    orders = [tuple(mask(tree, anonymize=True, min_patients=5, seed=s).codes["therapist"].values()) for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert list(orders[0]) != sorted(orders[0])
    fresh = {tuple(mask(tree, anonymize=True, min_patients=5, seed=None).codes["therapist"].values()) for _ in range(3)}
    assert len(fresh) == 3


@pytest.mark.parametrize(
    ("sizes", "n_hidden"), [([8, 8, 8], 0), ([8, 7, 3], 2), ([8, 3, 2], 2), ([4, 3, 2], 3), ([8, 5, 5], 0)]
)
def test_small_caseloads_are_hidden_never_one_alone(sizes: list[int], n_hidden: int) -> None:
    masked = mask(uneven(sizes), anonymize=True, min_patients=5, seed=1)
    assert len(masked.hidden["therapist"]) == n_hidden


def test_less_than_five_patients_is_refused_unless_identified() -> None:
    tree = make_tree()
    with pytest.raises(SpecError, match="fewer than 5 patients"):
        mask(tree, anonymize=True, min_patients=4, seed=None)
    assert mask(tree, anonymize=False, min_patients=1, seed=None).hidden == {}


FORMULAS = ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", '=HYPERLINK("x")']


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_runs_gets_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@given(st.text())
def test_no_text_cell_starts_a_formula(text: str) -> None:
    assert not str(safe_cell(text)).lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_stay_numbers() -> None:
    assert safe_cell(-3.5) == -3.5 and safe_cell(7) == 7


def test_printable_shows_marks_that_turn_text_around() -> None:
    assert printable("a\u202eb\x00") == "a\\u202eb\\x00"


@pytest.mark.parametrize(
    ("text", "ids", "shown"),
    [
        ("Patient 7 has 7 sessions.", ["7"], "Patient (id withheld) has 7 sessions."),
        ("17 of 149 values of x are missing, in 17 patients: P01, P02 and 15 more.", ["P01", "P02"],
         "17 of 149 values of x are missing, in 17 patients."),
        ("Check AB-1 and its rows.", ["AB-1"], "Check (id withheld) and its rows."),
        ("1 patient has one session.", [], "fewer than 5 patients has one session."),
        ("Of 21 patients 20 stay.", [], "Of 21 patients 20 stay."),
    ],
)  # fmt: skip
def test_ids_are_taken_out_of_findings(text: str, ids: list[str], shown: str) -> None:
    found = without_ids(text, ids, ids)
    assert found == shown


def test_findings_of_a_fit_name_nobody_and_quote_no_outlying_value() -> None:
    tree = make_tree()
    finding = {
        "severity": "warning",
        "code": "values-outlying",
        "column": "mood",
        "ids": ["P0001"],
        "message": "Column 'mood' has values far outside all others, between 0 and 9: 98765 for patient P0001.",
        "remedy": "Check for typing errors.",
    }
    tree.attrs[names.ATTR_NOTES] = json.dumps([finding])
    ((severity, text),) = shown_findings(mask(tree, anonymize=True, min_patients=5, seed=1))
    assert (severity, "98765" in text, "P0001" in text) == ("warning", False, False)
    assert "mood" in text and "typing errors" in text
    ((_, open_text),) = shown_findings(mask(tree, anonymize=False, min_patients=5, seed=1))
    assert "98765 for patient P0001" in open_text


def test_the_key_is_for_its_owner_alone(tmp_path) -> None:
    tree = make_tree(n_therapists=3, therapist_ids=["=1+1", "B", "C"])
    masked = mask(tree, anonymize=True, min_patients=5, seed=1)
    path = write_key(masked, tmp_path / "key.csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["level", "id", "code"]
    codes = {row[1]: row[2] for row in rows[1:] if row[0] == "therapist"}
    assert codes["'=1+1"] == masked.codes["therapist"]["=1+1"]

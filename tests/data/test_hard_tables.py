"""Tables that come from real desks: each is refused before anything compiles, or mended and said, or sound as it is.

Nothing is sampled. The tables are made here; none is in the pack that tests/test_badinputs.py reads.
"""

import json
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import psymech as psm
from psymech.cli import app

SEVERITY_COLUMN = "severity_pre"
SESSIONS = 6
THERAPISTS = 6
PATIENTS = 3


def sound_table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for t in range(THERAPISTS):
        for p in range(PATIENTS):
            severity = float(rng.integers(12, 22))
            for s in range(1, SESSIONS + 1):
                phq9 = float(np.clip(round(severity - s + rng.normal(0, 2)), 0, 27))
                alliance, exposure = float(round(rng.uniform(1, 5), 1)), float(rng.integers(0, 5))
                rows.append((f"T{t}", f"P{t}{p}", s, phq9, alliance, exposure, severity))
    columns = ["therapist", "patient", "session", "phq9", "alliance", "exposure", SEVERITY_COLUMN]
    return pd.DataFrame(rows, columns=pd.Index(columns))


B = sound_table()
N = len(B)
PROCESS = psm.process("phq9", techniques=["exposure"], common_factors=["alliance"], covariates=[SEVERITY_COLUMN])


@dataclass(frozen=True)
class Case:
    """A table, what must come of it, and words that must be said (regular expressions, dots match line ends)."""

    name: str
    table: Callable[[Path], Any]
    outcome: Literal["refused", "said", "quiet"]
    words: tuple[str, ...] = ()
    spec: psm.ModelSpec = PROCESS
    reading: dict[str, Any] = field(default_factory=dict)


def with_columns(**columns: Any) -> Callable[[Path], pd.DataFrame]:
    return lambda folder: B.assign(**columns)


def with_cells(column: str, rows: list[int], value: Any) -> Callable[[Path], pd.DataFrame]:
    cells = B[column].tolist()
    for row in rows:
        cells[row] = value
    return lambda folder: B.assign(**{column: cells})


def in_file(content: str | bytes, name: str = "t.csv") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def renamed(old: str, new: str) -> pd.DataFrame:
    return B.assign(patient=B.patient.replace({old: new}))


CSV = B.to_csv(index=False)
BINARY = {"family": "bernoulli", "common_factors": ["alliance"]}

REFUSED = [
    Case(
        "a word among numbers",
        with_cells("phq9", [3], "twelve"),
        "refused",
        ("'phq9'.*numbers", "'twelve' at row 3", "P00"),
    ),
    Case(
        "ids as numbers and the same as text",
        with_columns(patient=[1, "1", 1, "1", 1, "1", *B.patient[6:]]),
        "refused",
        ("both as a number and as text",),
    ),
    Case(
        "dates for sessions",
        with_columns(session=pd.date_range("2024-01-01", periods=N)),
        "refused",
        ("look like dates", "1, 2, 3"),
    ),
    Case(
        "dates as text for sessions",
        with_columns(session=[f"2024-01-{1 + i % 6:02d}" for i in range(N)]),
        "refused",
        ("look like dates",),
    ),
    Case(
        "spreadsheet day numbers for sessions",
        with_columns(session=[45292 + 7 * (i % 6) for i in range(N)]),
        "refused",
        ("45292", "date", "time="),
    ),
    Case(
        "durations for sessions",
        with_columns(session=pd.to_timedelta(B.session, unit="D")),
        "refused",
        ("must hold numbers",),
    ),
    Case(
        "an id with a zero-width space",
        with_cells("patient", [0, 1], "P00\u200b"),
        "refused",
        ("non-printable", "row 0, 1"),
    ),
    Case("an id that says nan", with_cells("patient", [0], "nan"), "refused", ("missing id or the initials",)),
    Case("no id", with_cells("patient", [0], None), "refused", ("missing.*1 of 108 rows", "row 0")),
    Case("an empty id", with_cells("therapist", [4], " "), "refused", ("therapist id.*missing", "row 4")),
    Case(
        "an infinite predictor",
        with_cells("alliance", [0], np.inf),
        "refused",
        ("'alliance'.*infinite", "row 0", "P00"),
    ),
    Case(
        "minus infinity in a file",
        in_file(with_cells("alliance", [0], "-inf")(Path()).to_csv(index=False)),
        "refused",
        ("infinite", "line 2"),
    ),
    Case(
        "numbers that overflow when squared",
        with_columns(alliance=B.alliance * 1e300),
        "refused",
        ("too large", "108 of 108"),
    ),
    Case("a constant outcome", with_columns(phq9=10.0), "refused", ("'phq9' has the one value 10",)),
    Case(
        "a constant technique", with_columns(exposure=2.0), "refused", ("exposure.within is constant", "Leave it out")
    ),
    Case(
        "a technique that varies between patients only",
        with_columns(exposure=B.groupby("patient").exposure.transform("mean")),
        "refused",
        ("exposure.within is constant",),
    ),
    Case(
        "a technique of the therapist's own",
        with_columns(exposure=B.therapist.str[1:].astype(float)),
        "refused",
        ("exposure.within", "exposure.patient"),
    ),
    Case("one therapist", with_columns(therapist="T0"), "refused", ("only 1 therapist", "at least 3")),
    Case("two therapists", lambda folder: B[B.therapist.isin(["T0", "T1"])], "refused", ("only 2 therapists",)),
    Case("one session a patient", lambda folder: B[B.session == 1], "refused", ("Every patient has only one session",)),
    Case(
        "one patient a therapist",
        lambda folder: B[B.patient.str.endswith("0")],
        "refused",
        ("Every therapist has only one patient",),
    ),
    Case(
        "the patient's id as the therapist's",
        with_columns(therapist=B.patient),
        "refused",
        ("Every therapist has only one patient",),
    ),
    Case(
        "one column for two roles",
        lambda folder: B,
        "refused",
        ("'patient' is given for patient and therapist",),
        reading={"therapist": "patient"},
    ),
    Case("a row twice", lambda folder: pd.concat([B, B.iloc[[3]]]), "refused", ("1 duplicate row", "P00")),
    Case(
        "a session twice with other values",
        lambda folder: pd.concat([B, B.iloc[[3]].assign(phq9=1.0)]),
        "refused",
        ("repeats a session number", "P00"),
    ),
    Case(
        "a score outside its scale",
        with_cells("phq9", [3], 45.0),
        "refused",
        ("range 0 to 27", "45 at row 3", "ranges="),
    ),
    Case(
        "percent signs",
        with_columns(alliance=[f"{int(10 * v)}%" for v in B.alliance]),
        "refused",
        ("'alliance'.*numbers", "%"),
    ),
    Case(
        "thousands separators",
        with_columns(severity_pre=[f"1,{int(v):03d}" for v in B.severity_pre]),
        "refused",
        ("thousands", "decimal comma"),
    ),
    Case(
        "decimal commas and semicolons",
        in_file(B.to_csv(index=False, sep=";", decimal=",")),
        "refused",
        ("decimal comma",),
    ),
    Case("other digits", with_columns(session=[chr(0xFF10 + s) for s in B.session]), "refused", ("must hold numbers",)),
    Case(
        "ids beyond exact floats",
        with_columns(patient=[float(2**53 + 2 * (i // 6)) for i in range(N)]),
        "refused",
        (r"2\*\*53", "Int64"),
    ),
    Case(
        "ids with decimals", with_columns(patient=[i // 6 + 0.5 for i in range(N)]), "refused", ("not whole numbers",)
    ),
    Case("ids true and false", with_columns(therapist=B.therapist == "T0"), "refused", ("true/false",)),
    Case(
        "ids that a spreadsheet rounded",
        in_file(renamed("P00", "1.2E+15").to_csv(index=False)),
        "refused",
        ("1.2E\\+15", "spreadsheet"),
    ),
    Case("an id over two lines", in_file(renamed("P00", "a\nb").to_csv(index=False)), "refused", ("non-printable",)),
    Case(
        "a patient under two therapists",
        with_cells("therapist", [3, 4, 5], "T3"),
        "refused",
        ("several therapists", "nested", "crossed"),
    ),
    Case(
        "ids that merge when joined",
        lambda folder: B.assign(
            therapist=B.therapist.replace({"T0": "a/b", "T1": "a"}),
            patient=B.patient.replace({"P00": "c", "P10": "b/c"}),
        ),
        "refused",
        ("would merge",),
        reading={"patient_ids": "nested"},
    ),
    Case("negative sessions", with_columns(session=B.session - 4), "refused", ("must not be negative", "-3")),
    Case("half sessions", with_columns(session=B.session + 0.5), "refused", ("whole numbers", "time=")),
    Case("a session of 10^12", with_cells("session", [5], 10**12), "refused", ("1000000000000 at row 5",)),
    Case("no session number", with_cells("session", [0], pd.NaT), "refused", ("session number.*missing", "P00")),
    Case(
        "a code for missing",
        with_cells("alliance", [3, 9], 99),
        "refused",
        ("codes for missing values", "2 of 108 values are 99"),
    ),
    Case(
        "a negative code for missing", with_cells("alliance", [3, 9], -9), "refused", ("codes for missing values", "-9")
    ),
    Case(
        "missing predictors",
        with_columns(alliance=pd.array([pd.NA] * 3 + B.alliance.tolist()[3:], dtype="Float64")),
        "refused",
        ("'alliance': 3 missing", "P00"),
    ),
    Case("an empty predictor", with_columns(alliance=np.nan), "refused", ("'alliance': 108 missing",)),
    Case("an empty outcome", with_columns(phq9=np.nan), "refused", ("'phq9': every value is missing",)),
    Case("yes and no", with_columns(exposure=np.where(B.exposure > 2, "yes", "no")), "refused", ("0/1",)),
    Case("complex numbers", with_columns(alliance=B.alliance.astype(complex)), "refused", ("must hold numbers",)),
    Case("lists in cells", with_columns(alliance=[[1, 2]] * N), "refused", ("'alliance'", "lists, records or bytes")),
    Case(
        "a record in a cell",
        with_columns(phq9=[{"a": 1}, *B.phq9[1:]]),
        "refused",
        ("'phq9'", "lists, records or bytes"),
    ),
    Case(
        "two techniques that are one",
        with_columns(other=2 * B.exposure + 1),
        "refused",
        ("exposure.within and other.within", "linear functions"),
        spec=psm.process("phq9", techniques=["exposure", "other"]),
    ),
    Case(
        "the outcome as its own predictor",
        with_columns(copy=3 * B.phq9 - 1),
        "refused",
        ("copy is the outcome phq9 itself", "Leave it out"),
        spec=psm.process("phq9", techniques=["copy"]),
    ),
    Case(
        "a baseline with two values",
        with_cells(SEVERITY_COLUMN, [2], 30.0),
        "refused",
        ("severity_pre", "varies", "P00"),
    ),
    Case(
        "a patient table with two rows a patient",
        lambda folder: B.drop(columns=SEVERITY_COLUMN),
        "refused",
        ("one row a patient", "duplicate"),
        reading={"patients": B.iloc[::3][["patient", SEVERITY_COLUMN]]},
    ),
    Case(
        "three values of a binary outcome",
        with_columns(y=B.exposure),
        "refused",
        ("needs 0 and 1 in 'y'",),
        spec=psm.process("y", **BINARY),
    ),
    Case(
        "a binary outcome as 1 and 2",
        with_columns(y=1 + B.session % 2),
        "refused",
        ("needs 0 and 1 in 'y'",),
        spec=psm.process("y", **BINARY),
    ),
    Case(
        "a binary outcome that is always 1",
        with_columns(y=1.0),
        "refused",
        ("the one value 1",),
        spec=psm.process("y", **BINARY),
    ),
    Case(
        "a measurement as an ordinal outcome",
        with_columns(y=B.alliance + 0.01 * np.arange(N)),
        "refused",
        ("at most 30 whole-number categories",),
        spec=psm.process("y", techniques=["exposure"], family="ordinal"),
    ),
    Case("an empty file", in_file(""), "refused", ("empty", "0 bytes")),
    Case("a header and nothing else", in_file(CSV.splitlines()[0] + "\n"), "refused", ("columns but no rows",)),
    Case("a table without rows", lambda folder: B.iloc[:0], "refused", ("no rows",)),
    Case("no header", in_file(B.to_csv(index=False, header=False)), "refused", ("header line.*missing",)),
    Case("two files pasted together", in_file(CSV + CSV), "refused", ("header line.*repeated on line 110",)),
    Case("a quote that is never closed", in_file(CSV + '"T9,P9,1,2,3,4\n'), "refused", ("quotation mark", "line 110")),
    Case(
        "a column name twice",
        lambda folder: pd.concat([B, B[["alliance"]]], axis=1),
        "refused",
        ("distinct", "'alliance'"),
    ),
    Case(
        "a column name twice in a file",
        in_file(CSV.replace("exposure", "alliance", 1)),
        "refused",
        ("distinct", "alliance"),
    ),
    Case(
        "two rows of column names",
        lambda folder: B.set_axis(pd.MultiIndex.from_product([["x"], B.columns]), axis=1),
        "refused",
        ("must be text", "tuple"),
    ),
    Case(
        "a number for a column name",
        lambda folder: B.rename(columns={"alliance": 3}),
        "refused",
        ("must be text", "3 is int"),
    ),
    Case(
        "one row a patient",
        lambda folder: (
            B.pivot(index=["therapist", "patient"], columns="session", values="phq9").add_prefix("phq9_").reset_index()
        ),
        "refused",
        ("wide", "psm.read_wide"),
    ),
    Case("no table", lambda folder: 42, "refused", ("Expected a path", "got int")),
    Case("a list of records", lambda folder: B.to_dict("records"), "refused", ("got list",)),
    Case("a bare array", lambda folder: B.to_numpy(), "refused", ("got ndarray",)),
    Case("a file that is not there", lambda folder: "nowhere.csv", "refused", ("nowhere.csv", "No such file")),
    Case("a folder", lambda folder: str(folder), "refused", ("is a folder",)),
    Case("a spreadsheet", in_file(b"PK\x03\x04rest", "t.xlsx"), "refused", ("CSV UTF-8",)),
    Case("a spreadsheet that is called csv", in_file(b"PK\x03\x04rest"), "refused", ("binary file",)),
]

SAID = [
    Case(
        "look-alike letters",
        with_columns(therapist=["\u04220" if p == "P00" else t for p, t in zip(B.patient, B.therapist, strict=True)]),
        "said",
        ("look alike", "T0 and \u04220"),
    ),
    Case("full-width ids", with_cells("patient", [0, 1], "\uff30\uff10\uff10"), "said", ("look alike", "P00")),
    Case("spaces around ids", with_cells("therapist", [0, 1], "T0 "), "said", ("T0.*trimmed",)),
    Case("no-break spaces around ids", with_cells("therapist", [0, 1], "T0\u00a0"), "said", ("T0.*trimmed",)),
    Case(
        "ids that differ by case",
        with_cells("therapist", list(range(6)), "t0"),
        "said",
        ("upper and lower case", "T0 and t0"),
    ),
    Case(
        "a missing outcome as text",
        with_cells("phq9", [0], "NaN"),
        "said",
        ("1 of 108 values of phq9 are missing", "P00"),
    ),
    Case(
        "time that runs backwards",
        with_columns(day=[10 * (7 - s) for s in B.session]),
        "said",
        ("runs backwards.*18 patients",),
        reading={"time": "day"},
    ),
    Case("semicolons", in_file(B.to_csv(index=False, sep=";")), "said", ("semicolon as separator",)),
    Case("UTF-16", in_file(CSV.encode("utf-16")), "said", ("UTF-16",)),
    Case(
        "sessions far ahead",
        with_columns(session=np.where(B.session == 6, 400, B.session)),
        "said",
        ("jump by more than 30", "400"),
    ),
    Case(
        "complete separation",
        with_columns(y=(B.exposure > 2) * 1.0),
        "said",
        ("exposure separates the two values of y completely: 0 up to 2, 1 from 3 on",),
        spec=psm.process("y", techniques=["exposure"], family="bernoulli"),
    ),
    Case(
        "separation the other way",
        with_columns(y=(B.exposure < 2) * 1.0),
        "said",
        ("1 up to 1, 0 from 2 on",),
        spec=psm.process("y", techniques=["exposure"], family="bernoulli"),
    ),
    Case(
        "an ordinal category that nobody chose",
        with_columns(y=B.exposure.replace(2.0, 1.0)),
        "said",
        ("No value of y is 2.*4 categories 0, 1, 3, 4",),
        spec=psm.process("y", common_factors=["alliance"], family="ordinal"),
    ),
    Case(
        "a binary outcome called Gaussian",
        with_columns(y=B.session % 2 * 1.0),
        "said",
        ("only two values, 0 and 1", "bernoulli"),
        spec=psm.process("y", common_factors=["alliance"]),
    ),
    Case(
        "an unused column that is empty", with_columns(notes_score=np.nan), "said", ("'notes_score' is empty: all 108",)
    ),
    Case("a name column", with_columns(patient_name=["Ann Other"] * N), "said", ("'patient_name' was dropped",)),
    Case("four therapists", lambda folder: B[B.therapist < "T4"], "said", ("only 4 therapists",)),
    Case(
        "a technique once in the file",
        with_columns(exposure=[1.0] + [0.0] * (N - 1)),
        "said",
        ("nearly constant.*P00",),
    ),
]

QUIET = [
    Case("as it should be", lambda folder: B, "quiet"),
    Case("a byte order mark", in_file(b"\xef\xbb\xbf" + CSV.encode()), "quiet"),
    Case("line ends of Windows", in_file(CSV.replace("\n", "\r\n")), "quiet"),
    Case("whole floats as ids", with_columns(patient=[float(i // 6) for i in range(N)]), "quiet"),
    Case("ids beyond 2^53 as integers", with_columns(patient=[2**60 + i // 6 for i in range(N)]), "quiet"),
    Case(
        "ids beyond 2^64", with_columns(patient=pd.Series([10**25 + i // 6 for i in range(N)], dtype=object)), "quiet"
    ),
    Case("a comma in an id", in_file(renamed("P00", "a,b").to_csv(index=False)), "quiet"),
    Case("sessions from zero", with_columns(session=B.session - 1), "quiet"),
    Case("a technique true or false", with_columns(exposure=B.exposure > 2), "quiet"),
    Case("decimals of Python", with_columns(alliance=[Decimal(str(v)) for v in B.alliance]), "quiet"),
    Case("categories of pandas", with_columns(therapist=B.therapist.astype("category")), "quiet"),
    Case("small integers", with_columns(phq9=B.phq9.astype("uint8"), session=B.session.astype("uint8")), "quiet"),
    Case("half precision", with_columns(alliance=B.alliance.astype("float16")), "quiet"),
    Case("rows in any order", lambda folder: B.sample(frac=1.0, random_state=2), "quiet"),
]


def named(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def read(case: Case, folder: Path) -> tuple[psm.SessionData, psm.DesignReport]:
    data = psm.SessionData.from_frame(case.table(folder), **case.reading)
    return data, psm.check_design(data, case.spec)


@pytest.fixture
def no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was to be compiled")

    monkeypatch.setattr("psymech.inference.collapsed.sample_collapsed", compiles)
    monkeypatch.setattr("psymech.inference.run.run_sampler", compiles)


@pytest.mark.parametrize("case", named(REFUSED))
def test_refused_before_anything_compiles(case: Case, tmp_path: Path, no_compiling: None):
    with pytest.raises(psm.PsymechError) as told, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", psm.DesignWarning)
        data = psm.SessionData.from_frame(case.table(tmp_path), **case.reading)
        psm.fit(case.spec, data, draws=1, tune=1, progressbar=False)
    missing = [words for words in case.words if not matches(words, str(told.value))]
    assert missing == [], str(told.value)


@pytest.mark.parametrize("case", named(SAID))
def test_mended_or_warned_of_in_words(case: Case, tmp_path: Path):
    _, report = read(case, tmp_path)
    assert report.ok, str(report)
    text = "\n".join(str(finding) for finding in report.findings)
    assert [words for words in case.words if not matches(words, text)] == [], text


@pytest.mark.parametrize("case", named(QUIET))
def test_sound_tables_are_left_alone(case: Case, tmp_path: Path):
    data, report = read(case, tmp_path)
    assert report.findings == (), str(report)
    assert (data.n_sessions, data.n_patients, data.n_therapists) == (N, THERAPISTS * PATIENTS, THERAPISTS)
    patients = data.ids["patient"][data.codes["patient"]]
    assert np.array_equal(np.unique(patients, return_counts=True)[1], [SESSIONS] * THERAPISTS * PATIENTS)


def written(case: Case, folder: Path) -> Path | str | None:
    """A case as a file, None where a file cannot hold what is wrong with it."""
    if case.reading or case.spec is not PROCESS or case.name.startswith("ids "):  # a file's ids are all text
        return None
    table = case.table(folder)
    if isinstance(table, pd.DataFrame):
        if not all(isinstance(name, str) for name in table.columns) or not table.columns.is_unique:
            return None
        table.to_csv(folder / "table.csv", index=False)
        return folder / "table.csv"
    return table if isinstance(table, str | Path) else None


@pytest.mark.parametrize("case", named(REFUSED[::3]))
def test_the_command_line_refuses_too(case: Case, tmp_path: Path):
    table = written(case, tmp_path)
    if table is None:
        pytest.skip("no such file can be written")
    (tmp_path / "fit.toml").write_text(
        '[data]\nfile = "t.csv"\n[model]\nkind = "process"\noutcome = "phq9"\ntechniques = ["exposure"]\n'
        f'common_factors = ["alliance"]\ncovariates = ["{SEVERITY_COLUMN}"]\n'
    )
    done = CliRunner().invoke(app, ["check", str(table), "--config", str(tmp_path / "fit.toml"), "--json"])
    assert done.exit_code == 1, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert json.loads(done.stdout)["ok"] is False


def matches(words: str, text: str) -> bool:
    return re.search(words, text, re.DOTALL) is not None


def test_no_message_names_more_than_five_ids():
    """Whatever is refused or said: of the 18 patients five at most."""
    for case in (*REFUSED, *SAID):
        with tempfile.TemporaryDirectory() as folder:
            try:
                _, report = read(case, Path(folder))
                texts = [str(finding) for finding in report.findings if finding.code != "model"]
            except psm.PsymechError as problem:
                texts = str(problem).splitlines()
        for text in texts:
            assert sum(f"{patient}" in text for patient in B.patient.unique()) <= 5, text

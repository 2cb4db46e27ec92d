"""More tables from real desks: exports of spreadsheets, clinics and other programs, in the form of test_hard_tables.py.

Only reading and the design are run; nothing is compiled.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import psymech as psm
from tests.data.test_hard_tables import CSV, PROCESS, SEVERITY_COLUMN, B, Case, N, in_file, matches, with_cells

PATIENTS = B.drop_duplicates("patient")[["patient", SEVERITY_COLUMN]].rename(columns={SEVERITY_COLUMN: "severity"})
ARROW = pa.Table.from_pandas(B)


def ids(make: Callable[[int], object], column: str = "patient") -> Callable[[Path], pd.DataFrame]:
    """The table with ids made from the patient's number."""
    return lambda folder: B.assign(**{column: [make(i // 6) for i in range(N)]})


def typed(column: str, cells: Any) -> Callable[[Path], pa.Table]:
    return lambda folder: ARROW.set_column(ARROW.schema.get_field_index(column), column, cells)


def as_file(table: pd.DataFrame, **keywords: Any) -> Callable[[Path], Path]:
    return in_file(table.to_csv(index=False, **keywords))


def therapist_of_last(label: str) -> Callable[[Path], pd.DataFrame]:
    return lambda folder: B.assign(therapist=B.therapist.replace({"T5": label}))


def some_therapist(rows: int, label: str) -> Callable[[Path], pd.DataFrame]:
    return lambda folder: B.assign(therapist=[label] * rows + B.therapist.tolist()[rows:])


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def closed(folder: Path) -> object:
    connection = duckdb.connect()
    relation = connection.from_df(B)
    connection.close()
    return relation


REFUSED = [
    Case("Windows-1252", in_file(CSV.replace("P00", "Jürgen").encode("cp1252")), "refused", ("Windows-1252", "line 2")),
    Case("UTF-16 without its mark", in_file(CSV.encode("utf-16-le")), "refused", ("UTF-16 without its mark",)),
    Case("a title in its own columns", in_file("Study A,,,,,,\n" + CSV), "refused", ("stand on line 2",)),
    Case("a comment above", in_file("# exported\n" + CSV), "refused", ("comment above the header",)),
    Case("a footer", in_file(CSV + "# end\n"), "refused", ("line 110", "footer")),
    Case("units under the header", in_file(CSV.replace("\n", "\n,,n,,,,\n", 1)), "refused", ("line 2", "second line")),
    Case(
        "labels under the header",
        in_file(CSV.replace("\n", "\nTherapist,Patient,Number,PHQ,WAI,Exp,Sev\n", 1)),
        "refused",
        ("'Number' at line 2", "second line"),
    ),
    Case("spaces between columns", in_file(CSV.replace(",", " "), "t.txt"), "refused", ("one column", "spaces")),
    Case(
        "each line in quotes",
        in_file("\n".join(f'"{line}"' for line in CSV.splitlines())),
        "refused",
        ("one column", "each line stands in quotes"),
    ),
    Case("a totals row with ids", in_file(CSV + "Total,Total,108,12,3,2,15\n"), "refused", ("'Total' at line 110",)),
    Case(
        "subtotals of a pivot table",
        in_file(CSV.replace("T1,P10,1", "T0 Total,,,100,,,\nT1,P10,1", 1)),
        "refused",
        ("line 20", "totals row", "patient id.*missing"),
    ),
    Case(
        "a subtotal with a patient",
        lambda folder: pd.concat([B, B.iloc[[0]].assign(therapist="T0 Ergebnis", patient="P00x")]),
        "refused",
        ("'T0 Ergebnis'", "totals row"),
    ),
    Case("a packed file", in_file(b"\x1f\x8b", "t.csv.gz"), "refused", ("'.gz'", "Unpack")),
    Case("a Stata file", in_file(b"x", "t.dta"), "refused", ("pandas.read_stata",)),
    Case("a folder called .sav", lambda folder: made(folder / "a.sav"), "refused", ("Is a directory",)),
    Case("an address", lambda folder: "https://example.org/a.csv", "refused", ("not fetched", "Download")),
    Case("the file's text", lambda folder: CSV, "refused", ("Expected a path.*several lines",)),
    Case("checked data", lambda folder: psm.SessionData.from_frame(B), "refused", ("checked already",)),
    Case("a query that fails", closed, "refused", ("could not be computed.*closed",)),
    Case("no columns", lambda folder: pd.DataFrame(), "refused", ("no columns",)),
    Case(
        "ids as bytes", typed("patient", pa.array([b"x"] * N)), "refused", ("'patient' holds lists, records or bytes",)
    ),
    Case("no column for patients", lambda folder: B, "refused", ("pass patient=",), reading={"patient": None}),
    Case("no column for sessions", lambda folder: B, "refused", ("pass session=",), reading={"session": None}),
    Case(
        "ids read once as decimals",
        as_file(B.assign(patient=[f"{100 + i // 6}{'.0' if i % 6 == 0 else ''}" for i in range(N)])),
        "refused",
        ("'100.0' at line 2 and '100' in other rows", "one spelling"),
    ),
    Case("a therapist called unknown", therapist_of_last("Unknown"), "refused", ("'Unknown' in 18 rows", "row 90")),
    Case("no answer for a therapist", therapist_of_last("k.A."), "refused", ("'k.A.' in 18 rows",)),
    Case("a formula that failed", therapist_of_last("#REF!"), "refused", ("'#REF!'",)),
    Case("a lost letter", therapist_of_last("M\ufffdller"), "refused", ("lost letter", "UTF-8")),
    Case("a no-break space in an id", with_cells("patient", [0], "P\u00a000"), "refused", ("non-printable", "row 0")),
    Case(
        "two therapists at a session",
        lambda folder: pd.concat([B, B.iloc[[0]].assign(therapist="T1")]),
        "refused",
        ("In 1 of them two therapists", "P00"),
        reading={"patient_ids": "crossed"},
    ),
    Case(
        "ratings with -1 for missing",
        with_cells("alliance", [3], -1.0),
        "refused",
        ("codes for missing", "-1 at row 3"),
    ),
    Case("points and commas", as_file(with_cells("alliance", [3], "1.234,5")(Path())), "refused", ("write 1234.5",)),
    Case("percent", with_cells("alliance", [3], "3,5 %"), "refused", ("'3,5 %'", "without the sign: 3.5")),
    Case(
        "ja, nein and k.A.",
        lambda folder: B.assign(exposure=["ja", "nein", "k.A."] * 36),
        "refused",
        ("0/1", "missing cell blank"),
    ),
    Case("levels as words", lambda folder: B.assign(exposure=["low", "high"] * 54), "refused", ("categories", "0/1")),
    Case("a range of text", lambda folder: B, "refused", ("two numbers",), reading={"ranges": {"phq9": ("0", "27")}}),
    Case(
        "a range without an end", lambda folder: B, "refused", ("two numbers",), reading={"ranges": {"phq9": (0, None)}}
    ),
    Case("ranges as a list", lambda folder: B, "refused", ("mapping",), reading={"ranges": [("phq9", 0, 27)]}),
    Case("a range for ids", lambda folder: B, "refused", ("has a role",), reading={"ranges": {"patient": (0, 1)}}),
    Case(
        "patients' ids as decimals",
        ids(lambda k: k),
        "refused",
        ("No patient of the sessions", "18 of them differ only", "0 in the sessions and 0.0"),
        reading={"patients": PATIENTS.assign(patient=[f"{k}.0" for k in range(18)])},
    ),
    Case(
        "patients' ids in small letters",
        lambda folder: B,
        "refused",
        ("P00 in the sessions and p00 in the table",),
        reading={"patients": PATIENTS.assign(patient=PATIENTS.patient.str.lower())},
    ),
    Case(
        "other patients",
        lambda folder: B,
        "refused",
        ("same ids",),
        reading={"patients": PATIENTS.assign(patient=range(18))},
    ),
    Case(
        "no patients", lambda folder: B, "refused", ("patient table has no rows",), reading={"patients": PATIENTS[:0]}
    ),
    Case(
        "patients in the index",
        lambda folder: B,
        "refused",
        ("reset_index",),
        reading={"patients": PATIENTS.set_index("patient")},
    ),
    Case(
        "another Unicode form",
        lambda folder: B.rename(columns={"alliance": "Bewa\u0308ltigung"}),
        "refused",
        ("Unicode form",),
        spec=psm.process("phq9", common_factors=["Bewältigung"]),
    ),
    Case(
        "the session as outcome",
        lambda folder: B,
        "refused",
        ("session numbers",),
        spec=psm.process("session", common_factors=["alliance"]),
    ),
    Case(
        "the time as outcome",
        lambda folder: B.assign(day=7.0 * B.session),
        "refused",
        ("column of times",),
        spec=psm.process("day", common_factors=["alliance"]),
        reading={"time": "day"},
    ),
    Case(
        "a patient's score repeated",
        lambda folder: B.assign(y=B[SEVERITY_COLUMN]),
        "refused",
        ("constant within each of the 18 patients", "psm.outcomes"),
        spec=psm.process("y", common_factors=["alliance"]),
    ),
    Case(
        "an outcome made of its predictors",
        lambda folder: B.assign(y=2 * B.alliance + B.session),
        "refused",
        ("exact linear combination", "computed"),
        spec=psm.process("y", common_factors=["alliance"]),
    ),
    Case(
        "yes as 1, no as -1",
        lambda folder: B.assign(y=[1, -1] * 54),
        "refused",
        ("Recode -1 as 0",),
        spec=psm.process("y", common_factors=["alliance"], family="bernoulli"),
    ),
    Case(
        "9 among 0 and 1",
        lambda folder: B.assign(y=[1, 0, 9] * 36),
        "refused",
        (r"9 \(36 rows\)",),
        spec=psm.process("y", common_factors=["alliance"], family="bernoulli"),
    ),
]

SAID = [
    Case("a file of UTF-16 with its mark", in_file(b"\xfe\xff" + CSV.encode("utf-16-be")), "said", ("UTF-16",)),
    Case(
        "leading zeros lost in half the rows",
        as_file(B.assign(patient=[f"{1 + i // 6:03d}" if i % 6 > 2 else f"{1 + i // 6}" for i in range(N)])),
        "said",
        ("warning.*leading zeros", "001 and 1", "16 more pairs"),
    ),
    Case("a joiner in an id", with_cells("patient", [0, 1], "P\u200d00"), "said", ("look alike", "P00")),
    Case("O for 0", with_cells("patient", [0, 1], "PO0"), "said", ("look alike", "P00 and PO0")),
    Case(
        "a dash of another length",
        lambda folder: B.assign(patient=["A–1"] * 3 + ["A-1"] * 3 + B.patient.tolist()[6:]),
        "said",
        ("A-1 and A–1",),
    ),
    Case(
        "an umlaut written out",
        lambda folder: B.assign(therapist=["Müller"] * 6 + ["Mueller"] * 12 + B.therapist.tolist()[18:]),
        "said",
        ("umlauts", "Mueller and Müller"),
    ),
    Case(
        "an accent left out",
        lambda folder: B.assign(therapist=["José"] * 6 + ["Jose"] * 12 + B.therapist.tolist()[18:]),
        "said",
        ("accents", "Jose and José"),
    ),
    Case(
        "letters read in another encoding",
        lambda folder: B.assign(therapist=["MÃ¼ller"] * 6 + ["Müller"] * 12 + B.therapist.tolist()[18:]),
        "said",
        ("look alike", "Müller"),
    ),
    Case("two therapists in a cell", some_therapist(6, "T0; T1"), "said", ("made of several others: T0; T1",)),
    Case(
        "a code among numbers",
        lambda folder: B.assign(therapist=[-99 if t == "T5" else int(t[1]) for t in B.therapist]),
        "said",
        ("-99", "code for a missing id"),
    ),
    Case(
        "ids that became dates", with_cells("patient", list(range(6)), "01-Mar"), "said", ("look like dates: 01-Mar",)
    ),
    Case(
        "sessions counted on over the study",
        lambda folder: B.assign(session=range(1, N + 1)),
        "said",
        ("run on over the patients of the whole table", "1 to 103"),
    ),
    Case(
        "sessions counted on under a therapist",
        lambda folder: B.assign(session=B.groupby("therapist").cumcount() + 1),
        "said",
        ("each therapist", "1 to 13"),
    ),
    Case(
        "points for thousands",
        in_file(B.assign(steps=[f"{1 + i % 9}.{200 + i}" for i in range(N)]).to_csv(index=False, sep=";")),
        "said",
        ("'steps'.*semicolons", "1.200 was read.*not as 1200"),
    ),
    Case(
        "a session number in the patients' table",
        lambda folder: B,
        "said",
        ("'session' of the patient table was not read",),
        reading={"patients": PATIENTS.assign(session=9)},
    ),
    Case(
        "a slope on a trait",
        lambda folder: B,
        "said",
        ("varies within none of 18 patients",),
        spec=psm.process("phq9", covariates=[SEVERITY_COLUMN], slopes={"patient": [SEVERITY_COLUMN]}),
    ),
    Case(
        "an outcome that moves in one patient",
        lambda folder: B.assign(y=np.where(B.patient == "P00", B.phq9, 9)),
        "said",
        ("y is nearly constant", "P00", "whole model"),
        spec=psm.process("y", common_factors=["alliance"]),
    ),
    Case(
        "ordinal values far apart",
        lambda folder: B.assign(y=B.exposure * 1e15),
        "said",
        ("more: the model has the 5",),
        spec=psm.process("y", common_factors=["alliance"], family="ordinal"),
    ),
]

QUIET = [
    Case("old line ends of a Macintosh", in_file(CSV.replace("\n", "\r")), "quiet"),
    Case("every cell in quotes", as_file(B, quoting=1), "quiet"),
    Case("an empty column at the end", in_file("\n".join(f"{line}," for line in CSV.splitlines())), "quiet"),
    Case("quoted line ends", as_file(B.assign(remark="one\ntwo")), "quiet"),
    Case("capitals in a file's name", in_file(CSV, "T.CSV"), "quiet"),
    Case("session numbers with a point", as_file(B.assign(session=[f"{s}." for s in B.session])), "quiet"),
    Case("ids that all end in .0", as_file(B.assign(patient=[f"{100 + i // 6}.0" for i in range(N)])), "quiet"),
    Case("an Arrow dictionary", typed("therapist", ARROW["therapist"].combine_chunks().dictionary_encode()), "quiet"),
    Case("Arrow's long strings", typed("therapist", ARROW["therapist"].cast(pa.large_string())), "quiet"),
    Case("Arrow decimals", typed("exposure", ARROW["exposure"].cast(pa.decimal128(5, 1))), "quiet"),
    Case(
        "polars categories",
        lambda folder: pl.from_pandas(B).with_columns(pl.col("therapist").cast(pl.Categorical)),
        "quiet",
    ),
    Case(
        "polars numbers of 128 bits",
        lambda folder: pl.from_pandas(B).with_columns(pl.col("session").cast(pl.Int128)),
        "quiet",
    ),
    Case("a sparse column", lambda folder: B.assign(exposure=pd.arrays.SparseArray(B.exposure)), "quiet"),
    Case(
        "numbers of 128 bits in DuckDB",
        lambda folder: duckdb.from_df(B).project("* replace (session::hugeint as session)"),
        "quiet",
    ),
    Case("numbers and text as ids", ids(lambda k: k if k % 2 else f"P{k}"), "quiet"),
    Case("negative ids", ids(lambda k: -k - 1), "quiet"),
    Case("sessions from the third on", lambda folder: B.assign(session=B.session + 2), "quiet"),
]


def few_patients(text: str) -> bool:
    """Whether no line names more than five patients."""
    return all(sum(patient in line for patient in B.patient.unique()) <= 5 for line in text.splitlines())


def named(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def told(case: Case, folder: Path) -> tuple[bool, str]:
    """Whether a table with its model is refused, and everything that is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            data = psm.SessionData.from_frame(case.table(folder), **case.reading)
        except psm.PsymechError as problem:
            return True, str(problem)
        report = psm.check_design(data, case.spec)
    return not report.ok, "\n".join(str(finding) for finding in report.findings)


@pytest.mark.parametrize("case", named(REFUSED))
def test_refused_in_words(case: Case, tmp_path: Path):
    refused, text = told(case, tmp_path)
    assert refused, text
    assert few_patients(text), text
    assert [words for words in case.words if not matches(words, text)] == [], text


@pytest.mark.parametrize("case", named(SAID))
def test_said_in_words(case: Case, tmp_path: Path):
    refused, text = told(case, tmp_path)
    assert not refused, text
    assert few_patients(text), text
    assert [words for words in case.words if not matches(words, text)] == [], text


@pytest.mark.parametrize("case", named(QUIET))
def test_sound_exports_are_left_alone(case: Case, tmp_path: Path):
    data = psm.SessionData.from_frame(case.table(tmp_path), **case.reading)
    report = psm.check_design(data, PROCESS)
    assert report.findings == (), str(report)
    assert (data.n_sessions, data.n_patients, data.n_therapists) == (N, 18, 6)
    assert np.array_equal(np.sort(data.values("phq9")), np.sort(B.phq9))

"""Text files: what is read, what is refused, what is said."""

from collections.abc import Callable
from pathlib import Path

import pytest

from psymech.data.sessions import SessionData
from psymech.errors import DataError

HEADER = "therapist,patient,session,mood,alliance"
ROWS = ["A,P1,1,10,3.5", "A,P1,2,9,3.6", "A,P2,1,8,3.0", "B,P3,1,12,2.0", "B,P3,2,11,2.5"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(*lines: str, name: str = "sessions.csv", encoding: str = "utf-8", end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return to_file


def codes(data: SessionData) -> list[str]:
    return [note.code for note in data.notes]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_clean_file_reads_without_a_note(write, end, encoding):
    data = SessionData.from_frame(write(HEADER, *ROWS, end=end, encoding=encoding))
    assert data.notes == ()
    assert data.ids["patient"].tolist() == ["P1", "P2", "P3"]
    assert data.values("mood").tolist() == [10, 9, 8, 12, 11]
    assert data.source_line is not None and data.source_line.tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(("separator", "word"), [("\t", "tab"), (";", "semicolon"), ("|", "vertical bar")])
def test_other_separator_is_read_and_said(write, separator, word):
    data = SessionData.from_frame(write(*(line.replace(",", separator) for line in (HEADER, *ROWS))))
    assert data.n_sessions == 5
    assert codes(data) == ["file-separator"]
    assert word in data.notes[0].message


def test_tsv_and_txt_need_no_note(write):
    lines = [line.replace(",", "\t") for line in (HEADER, *ROWS)]
    for name in ("sessions.tsv", "sessions.txt"):
        assert SessionData.from_frame(write(*lines, name=name)).notes == ()


def test_utf16_is_read_and_said(write):
    data = SessionData.from_frame(write(HEADER, *ROWS, encoding="utf-16"))
    assert data.n_sessions == 5
    assert codes(data) == ["file-encoding"]


def test_separator_line_of_a_spreadsheet(write):
    data = SessionData.from_frame(write("sep=;", *(line.replace(",", ";") for line in (HEADER, *ROWS))))
    assert data.n_sessions == 5
    assert data.source_line is not None and data.source_line[0] == 3


def test_blank_rows_are_counted(write):
    data = SessionData.from_frame(write(HEADER, *ROWS, ",,,,", " ,,,,"))
    assert data.n_sessions == 5
    assert codes(data) == ["rows-blank"]
    assert data.notes[0].message.startswith("2 rows")


def test_lines_are_counted_over_quoted_line_breaks_and_blank_lines(write):
    path = write(HEADER + ",note", 'A,P1,1,10,3.5,"two\nlines"', "", "A,P1,2,nine,3.6,x", "A,P2,1,1,1,x")
    with pytest.raises(DataError, match=r"'nine' at line 5, patient P1"):
        SessionData.from_frame(path).values("mood")


def test_unnamed_columns_are_ignored(write):
    data = SessionData.from_frame(write("," + HEADER, *(f"{i},{row}" for i, row in enumerate(ROWS))))
    assert codes(data) == ["column-unnamed"]
    assert data.column_names == ("mood", "alliance")


def test_empty_unnamed_column_is_no_news(write):
    assert SessionData.from_frame(write(HEADER + ",", *(row + "," for row in ROWS))).notes == ()


def test_missing_cells_are_missing_in_number_columns(write):
    tokens = ["", "NA", "n/a", "NaN", "null", ".", "-", " "]
    rows = [f"A,P{i},1,{token},1" for i, token in enumerate(tokens)]
    data = SessionData.from_frame(write(HEADER, *rows, "A,P9,1,4,1"))
    values = data.values("mood")
    assert (values != values).sum() == len(tokens)
    assert values[-1] == 4


@pytest.mark.parametrize("cell", ["1_0", "0x1A", "١٢", "−3", "1,5", "50%", "12 (prorated)", "1e", "#DIV/0!", "--1"])
def test_anything_else_is_text_and_shown(write, cell):
    data = SessionData.from_frame(write(HEADER, *ROWS[1:], f'A,P1,1,"{cell}",3'))
    with pytest.raises(DataError, match=r"Column 'mood' must hold numbers .* at line 6, patient P1\."):
        data.values("mood")


@pytest.mark.parametrize(
    ("cell", "number"), [("7", 7.0), ("+7.", 7.0), (".5", 0.5), ("-1.5E-3", -0.0015), (" 8 ", 8.0)]
)
def test_numbers_as_they_are_written(write, cell, number):
    data = SessionData.from_frame(write(HEADER, *ROWS[1:], f"A,P1,1,{cell},3"))
    assert data.values("mood")[0] == number


@pytest.mark.parametrize(
    ("hint", "cells"),
    [
        ("decimal comma", ["3,71", "4,2"]),
        ("0/1", ["yes", "no"]),
        ("dates", ["2024-05-01", "2024-05-08"]),
    ],
)
def test_text_gets_a_fitting_hint(write, hint, cells):
    rows = [f'A,P1,{i},"{cell}",3' for i, cell in enumerate(cells)]
    with pytest.raises(DataError, match=hint):
        SessionData.from_frame(write(HEADER, *rows)).values("mood")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        ([HEADER], "no rows"),
        ([HEADER, *ROWS[:2], "A,P1"], r"line 4 has 2 fields, but the header has 5 columns"),
        ([HEADER, ROWS[0] + ",x"], r"line 2 has 6 fields"),
        ([HEADER, ROWS[0], HEADER, ROWS[1]], "repeated on line 3"),
        ([HEADER.replace("alliance", "mood"), *ROWS], "distinct, but mood"),
        (ROWS, "header line"),
        (["Export of my study", HEADER, *ROWS], "title"),
        ([HEADER, 'A,"P1,1,10,3.5', *ROWS], "quotation mark"),
        ([HEADER, "A,P\x001,1,10,3"], "NUL byte"),
        (["PK\x03\x04", HEADER, *ROWS], "binary file"),
        ([HEADER, *ROWS, "Total,,,50,"], r"patient id .* missing .* line 7.*totals row"),
        (["therapist,patient,mood_1,mood_2,mood_3", "A,P1,1,2,3"], "reshape it to long"),
    ],
)
def test_damaged_file_is_refused(write, lines, message):
    with pytest.raises(DataError, match=message):
        SessionData.from_frame(write(*lines))


def test_latin1_is_refused_with_its_line(write):
    with pytest.raises(DataError, match=r"UTF-8: byte 0xfc on line 3"):
        SessionData.from_frame(write(HEADER, ROWS[0], "Müller,P4,1,1,1", encoding="latin-1"))


@pytest.mark.parametrize("name", ["sessions.xlsx", "sessions", "sessions.csv.gz"])
def test_other_kinds_of_file_are_refused(write, name):
    with pytest.raises(DataError, match="Cannot read a file of kind"):
        SessionData.from_frame(write(HEADER, *ROWS, name=name))


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "none.sav"])
def test_absent_file(tmp_path, name):
    with pytest.raises(DataError, match=f"Cannot read {name}"):
        SessionData.from_frame(tmp_path / name)


@pytest.mark.parametrize("name", ["sessions.parquet", "sessions.sav"])
@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"PAR1 torn", "not a complete"), (b"$FL2", "not a")])
def test_torn_binary_file(tmp_path, name, content, message):
    pytest.importorskip("pyreadstat")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        SessionData.from_frame(path)


@pytest.mark.parametrize("thing", [None, 3, {"patient": [1]}, [1, 2], object()])
def test_what_is_no_table_is_refused(thing):
    with pytest.raises(DataError, match="Expected a path"):
        SessionData.from_frame(thing)


def test_sav_keeps_ids_and_takes_user_missing_values_as_missing(tmp_path):
    pyreadstat = pytest.importorskip("pyreadstat")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"therapist": ["é", "b"], "patient": [1.0, 2.0], "session": [1.0, 1.0], "mood": [-9.0, 4.0]})
    pyreadstat.write_sav(frame, str(tmp_path / "s.sav"), missing_ranges={"mood": [-9]})
    data = SessionData.from_frame(tmp_path / "s.sav")
    assert data.ids["therapist"].tolist() == ["b", "é"]
    assert data.ids["patient"].dtype == "int64"
    values = data.values("mood")
    assert values[0] == 4.0 and values[1] != values[1]

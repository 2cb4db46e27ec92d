"""Whatever the table, reading it gives data or one of our own errors."""

import math
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psymech.data.checks import data_report
from psymech.data.decompose import decompose
from psymech.data.sessions import SessionData
from psymech.errors import PsymechError

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 30),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=6),
    st.sampled_from(
        ["NA", "nan", " 7", "7", "007", "7.0", "1e400", "inf", "3,5", "yes", "=1+1", "a/b", "\ufeff", "-99"]
    ),
    st.sampled_from([Decimal("1.5"), Decimal("NaN"), date(2024, 1, 1), b"x", [1], {"a": 1}, 1j]),
)
NAMES = st.sampled_from(
    ["therapist", "patient", "session", "clinic", "time", "phq9", "mood", "email", "x_1", "x_2", "x_3"]
)


@st.composite
def any_columns(draw):
    rows = draw(st.integers(0, 5))
    names = draw(st.lists(NAMES, unique=True, max_size=7))
    return {name: draw(st.lists(CELLS, min_size=rows, max_size=rows)) for name in names}


@st.composite
def plausible_columns(draw):
    rows = draw(st.integers(1, 6))
    ids = st.one_of(st.integers(0, 3), st.sampled_from(["a", "B", "a ", "7", "Jose\u0301"]))
    one_kind = draw(st.booleans())
    columns = {
        "therapist": draw(st.lists(st.integers(0, 1) if one_kind else ids, min_size=rows, max_size=rows)),
        "patient": draw(st.lists(st.integers(0, 3) if one_kind else ids, min_size=rows, max_size=rows)),
        "session": draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)),
    }
    extra = draw(st.lists(NAMES, unique=True, max_size=3))
    return {**{name: draw(st.lists(CELLS, min_size=rows, max_size=rows)) for name in extra}, **columns}


OPTIONS = st.fixed_dictionaries(
    {
        "therapist": st.sampled_from(["therapist", None]),
        "clinic": st.sampled_from([None, "clinic"]),
        "time": st.sampled_from([None, "time"]),
        "patient_ids": st.sampled_from(["unique", "nested", "crossed"]),
    }
)


def read_and_use(source: object, options: dict) -> SessionData | None:
    try:
        data = SessionData.from_frame(source, **options)
    except PsymechError as error:
        assert str(error)
        return None
    assert data.n_sessions == len(data.sessions) > 0
    report = data_report(data)
    assert str(report) and report._repr_html_()
    for name in data.column_names:
        try:
            values = data.values(name)
        except PsymechError:
            continue
        assert not any(map(math.isinf, values.tolist()))
        assert len(decompose(data, name)) == data.n_sessions
    return data


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(any_columns(), OPTIONS)
def test_any_table_gives_data_or_our_error(columns, options):
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
    read_and_use(frame, options)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(plausible_columns(), OPTIONS)
def test_a_plausible_table_gives_data_or_our_error(columns, options):
    data = read_and_use(
        pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()}), options
    )
    if data is not None:
        assert data.n_sessions == len(columns["session"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


LINES = st.lists(st.text(st.sampled_from(list('ab,;\t"\n\r 1.-é\x00')), max_size=12), max_size=6)


@given(
    head=st.sampled_from(
        [b"", b"therapist,patient,session,mood\n", b"patient;session\n", b"\xef\xbb\xbf", b"\xff\xfe"]
    ),
    lines=LINES,
    raw=st.binary(max_size=12),
)
def test_any_bytes_give_data_or_our_error(folder, head, lines, raw):
    path = folder / "any.csv"
    path.write_bytes(head + "\n".join(lines).encode() + raw)
    read_and_use(path, {})


@given(raw=st.binary(max_size=40), suffix=st.sampled_from(["parquet", "sav"]))
def test_any_bytes_in_a_binary_file_give_our_error(folder, raw, suffix):
    pytest.importorskip("pyreadstat")
    path = folder / f"any.{suffix}"
    path.write_bytes(raw)
    with pytest.raises(PsymechError):
        SessionData.from_frame(path)

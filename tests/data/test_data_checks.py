"""Checks of data and design columns, and the report that carries them."""

import numpy as np
import pandas as pd
import pytest

from psymech.data.checks import check_collinear, check_column, check_data, check_levels, data_report
from psymech.data.design_report import DesignReport
from psymech.data.findings import Finding
from psymech.data.sessions import SessionData
from psymech.errors import DesignError

RNG = np.random.default_rng(20)
PATIENT = np.repeat(np.arange(12), 5)
THERAPIST = PATIENT // 2
CODES = {"patient": PATIENT, "therapist": THERAPIST}
LABELS = {"patient": np.array([f"P{i}" for i in range(12)]), "therapist": np.array([f"T{i}" for i in range(6)])}
NOISE = RNG.normal(size=PATIENT.size)


def column(values, part="raw", name="x"):
    return check_column(name, np.asarray(values, dtype=float), CODES, part, labels=LABELS)


def kinds(findings) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in findings]


def test_a_sound_design_has_no_findings():
    assert check_levels({"patient": 1, "therapist": 2}, codes=CODES, labels=LABELS) == ()
    assert column(NOISE) == column(NOISE, "within") == ()
    assert check_collinear({"a": NOISE, "b": RNG.normal(size=NOISE.size)}) == ()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, ("error", "too-few-units")), (3, ("warning", "few-units")), (4, ("warning", "few-units"))],
)
def test_few_therapists(count, expected):
    codes = {"patient": PATIENT, "therapist": PATIENT % count}
    found = check_levels({"therapist": 1}, codes=codes, labels=LABELS)
    assert kinds(found) == [expected]
    assert str(count) in found[0].message and "prior" in found[0].message and "therapist" in found[0].message


def test_levels_without_a_variance_are_not_checked():
    codes = {"patient": PATIENT, "therapist": np.zeros_like(PATIENT)}
    assert check_levels({"patient": 1, "therapist": 0}, codes=codes, labels=LABELS) == ()


def test_single_sessions_and_single_patients():
    some = np.concatenate([PATIENT[:-4], [12, 13, 14]])
    labels = {"patient": np.arange(15)}
    found = check_levels({"patient": 1}, codes={"patient": some}, labels=labels)
    assert kinds(found) == [("warning", "one-session-patients")]
    assert "4 of 15 patients" in found[0].message and found[0].ids == ("11", "12", "13", "14")
    every = check_levels({"patient": 1}, codes={"patient": np.arange(12)}, labels=LABELS)
    assert kinds(every) == [("error", "all-one-session")]
    assert "identif" in every[0].message
    codes = {"patient": PATIENT, "therapist": np.minimum(PATIENT, 6)}
    labels = {"patient": LABELS["patient"], "therapist": np.arange(7)}
    assert kinds(check_levels({"patient": 1, "therapist": 1}, codes=codes, labels=labels)) == [
        ("warning", "one-patient-therapists")
    ]
    codes = {"patient": PATIENT, "therapist": PATIENT}
    labels = {"patient": LABELS["patient"], "therapist": np.arange(12)}
    assert kinds(check_levels({"patient": 1, "therapist": 1}, codes=codes, labels=labels)) == [
        ("error", "all-one-patient")
    ]


@pytest.mark.parametrize(("part", "words"), [("within", "within patients"), ("therapist", "between therapists")])
def test_a_constant_column_is_an_error_that_says_where(part, words):
    (finding,) = column(np.full(NOISE.size, 0.1) - 0.1 + 1e-17 * NOISE, part, "empathy.within")
    assert (finding.severity, finding.code) == ("error", "column-constant")
    assert words in finding.message and "vary" in finding.message


def test_a_technique_used_once_is_a_warning():
    once = np.zeros(NOISE.size)
    once[7] = 3
    (finding,) = column(once)
    assert finding.code == "column-rare" and "one row, patient P1" in finding.message
    (finding,) = column(np.where(PATIENT == 4, NOISE, 0.0), "within")
    assert finding.code == "column-rare" and "one patient (1 patient), P4" in finding.message


def test_a_baseline_that_varies_in_one_patient():
    baseline = PATIENT.astype(float)
    assert column(baseline, name="severity_pre") == ()
    baseline[13] += 5
    (finding,) = column(baseline, name="severity_pre")
    assert (finding.severity, finding.code, finding.ids) == ("error", "baseline-varies", ("P2",))
    (finding,) = column(baseline, name="age")
    assert finding.severity == "warning"
    assert column(NOISE, name="mood_pre") == ()


def test_collinear_columns_are_named():
    other = RNG.normal(size=NOISE.size)
    (finding,) = check_collinear({"a": NOISE, "b": NOISE.copy(), "c": other})
    assert finding.severity == "error" and "a and b are identical" in finding.message
    (finding,) = check_collinear({"a": NOISE, "b": 4 - 2 * NOISE})
    assert finding.severity == "error" and "linear functions of each other" in finding.message
    (finding,) = check_collinear({"a": NOISE, "b": other, "c": RNG.normal(size=NOISE.size), "total": NOISE + other})
    assert finding.severity == "error" and "a, b, total are collinear" in finding.message
    (finding,) = check_collinear({"a": NOISE, "b": NOISE + 0.05 * other})
    assert finding.severity == "warning" and "a and b are nearly collinear" in finding.message
    third = RNG.normal(size=NOISE.size)
    (finding,) = check_collinear({"a": NOISE, "b": other, "total": NOISE + other + 0.01 * third})
    assert finding.severity == "warning" and "condition number" in finding.message


def test_collinearity_ignores_scale_and_shift():
    other = RNG.normal(size=NOISE.size)
    assert check_collinear({"a": 1e6 + NOISE, "b": 1e-3 * other}) == ()


def frame(**changes) -> pd.DataFrame:
    base = {"patient": PATIENT, "therapist": THERAPIST, "session": np.tile(np.arange(1, 6), 12), "mood": NOISE}
    return pd.DataFrame({**base, **changes})


def found_in(**changes) -> list[Finding]:
    return list(check_data(SessionData.from_frame(frame(**changes), time="week" if "week" in changes else None)))


def test_sound_data_have_no_findings():
    assert data_report(SessionData.from_frame(frame())).findings == ()


def test_missing_cells_are_counted_with_their_patients():
    mood = NOISE.copy()
    mood[[3, 4, 7]] = np.nan
    (finding,) = found_in(mood=mood)
    assert (finding.code, finding.ids) == ("cells-missing", ("0", "1"))
    assert finding.message.startswith("3 of 60 values of mood are missing")
    assert kinds(found_in(mood=np.nan)) == [("warning", "column-empty")]


def test_doubtful_session_numbers_times_and_values():
    session = np.tile(np.arange(1, 6), 12)
    session[4] = 99
    (finding,) = found_in(session=session)
    assert finding.code == "session-jump" and "patient 0 (to session 99)" in finding.message
    week = session.astype(float)
    week[8] = 1.0
    (finding,) = [each for each in found_in(week=week) if each.code == "time-disorder"]
    assert finding.ids == ("1",)
    for value in (60.0, -60.0):
        mood = NOISE.copy()
        mood[20] = value
        (finding,) = found_in(mood=mood)
        assert finding.code == "values-outlying" and f"{value:g} for patient 4" in finding.message


def test_one_row_is_an_error():
    data = SessionData.from_frame(frame().iloc[:1])
    assert ("error", "rows-few") in kinds(check_data(data))


FINDINGS = (
    Finding("note", "n", "a", (), "noted", ""),
    Finding("error", "e1", "a_longer_name", ("P1",), "first <b>fault</b>", "mend it"),
    Finding("warning", "w", "b", (), "warned " * 40, ""),
    Finding("error", "e2", "", (), "second", ""),
)


def test_report_sorts_counts_and_raises():
    report = DesignReport(FINDINGS)
    assert not report.ok
    assert [finding.code for finding in report.errors] == ["e1", "e2"]
    assert [len(report.warnings), len(report.notes)] == [1, 1]
    with pytest.raises(DesignError) as caught:
        report.raise_errors()
    assert "first" in str(caught.value) and "mend it\nsecond\nWarning: warned" in str(caught.value)
    table = report.to_frame()
    assert table["code"].tolist() == ["e1", "e2", "w", "n"]
    lines = str(report).splitlines()
    assert lines[0] == "2 errors, 1 warning, 1 note"
    starts = {line.index(word) for line in lines for word in ("first", "second", "noted", "finding") if word in line}
    assert len(starts) == 1
    assert max(map(len, lines)) <= 110


def test_html_is_escaped():
    text = DesignReport(FINDINGS)._repr_html_()
    assert "<b>" not in text and "&lt;b&gt;fault" in text


def test_an_empty_report_is_ok():
    report = DesignReport()
    report.raise_errors()
    assert report.ok and "No findings" in str(report) and len(report.to_frame()) == 0

"""Scores of questionnaires, and their reliability within and between patients."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import psymech as psm

ITEMS = ["q1", "q2", "q3"]
ANSWERS = pd.DataFrame({"patient": ["a", "a", "b"], "q1": [0, 3, None], "q2": [1, 3, 2], "q3": [3, 0, None]})


def test_sum_and_mean_with_a_reversed_item() -> None:
    full = ANSWERS.fillna(0)
    summed = psm.score_scale(full, name="s", items=ITEMS, limits=(0, 3), reversed=["q3"])
    mean = psm.score_scale(full, name="s", items=ITEMS, limits=(0, 3), reversed=["q3"], score="mean")
    assert summed["s"].tolist() == [1.0, 9.0, 5.0]
    assert mean["s"].tolist() == [1 / 3, 3.0, 5 / 3]


@pytest.mark.parametrize(("max_missing", "last"), [(0, np.nan), (1, np.nan), (2, 6.0)])
def test_missing_items_are_prorated_up_to_the_rule(max_missing: int, last: float) -> None:
    scored = psm.score_scale(ANSWERS, name="s", items=ITEMS, limits=(0, 3), max_missing=max_missing)
    np.testing.assert_array_equal(scored["s"], [4.0, 6.0, last])


def test_prorated_and_missing_scores_reach_the_findings() -> None:
    rows = pd.DataFrame({"therapist": "T", "patient": ["a", "a", "b"], "session": [1, 2, 1]})
    table = pd.concat([rows, ANSWERS[ITEMS]], axis=1)
    data = psm.SessionData.from_frame(psm.score_scale(table, name="s", items=ITEMS, limits=(0, 3), max_missing=2))
    assert [n.message for n in data.notes if n.code == "scores-prorated"] == [
        "1 of 3 scores 's' were prorated from the answered items."
    ]
    data = psm.SessionData.from_frame(psm.score_scale(table, name="s", items=ITEMS, limits=(0, 3)))
    assert "1 of 3 scores 's' are missing" in next(n.message for n in data.notes if n.code == "scores-missing")


def test_an_item_that_was_not_reversed_is_pointed_out() -> None:
    rng = np.random.default_rng(3)
    trait = rng.normal(size=60)
    table = pd.DataFrame({f"q{i}": np.clip(np.round(trait + 3 + rng.normal(0, 0.5, 60)), 0, 6) for i in range(1, 4)})
    table["q3"] = 6 - table["q3"]
    scored = psm.score_scale(table, name="s", items=ITEMS, limits=(0, 6))
    assert ["items-against", "s"] in [note[:2] for note in scored.attrs["psymech_notes"]]
    right = psm.score_scale(table, name="s", items=ITEMS, limits=(0, 6), reversed=["q3"])
    assert right.attrs["psymech_notes"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limits": (0, 2)}, "Item 'q1' must lie from 0 to 2, but 1 of 3 answers do not: 3 at row 1"),
        ({"limits": (3, 0)}, "limits expects"),
        ({"items": ["q1", "q4"]}, "no column 'q4'"),
        ({"items": ["q1", "q1"]}, "'q1' is repeated"),
        ({"items": "q1"}, "items expects the names"),
        ({"items": ["q1", "q2"], "reversed": ["q3"]}, "not among the items"),
        ({"name": "q1"}, "in the table already"),
        ({"max_missing": 3}, "max_missing must lie from 0 to 2"),
        ({"score": "total"}, "'sum' or 'mean'"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(psm.DataError, match=words):
        psm.score_scale(ANSWERS, **({"name": "s", "items": ITEMS, "limits": (0, 3)} | change))


def test_text_answers_are_refused_with_the_cell() -> None:
    with pytest.raises(psm.DataError, match=r"'q2' must hold numbers .* 'often' at row 1"):
        psm.score_scale(ANSWERS.assign(q2=["1", "often", "2"]), name="s", items=ITEMS, limits=(0, 3))


SEED, PATIENTS, SESSIONS = 11, 400, 8
WITHIN, BETWEEN = 0.5, 2.0  # variances of the trait's parts; each item adds noise of variance 1 to each session
ALPHA_WITHIN = 3 / 2 * (1 - 3 * (WITHIN + 1) / (9 * WITHIN + 3))
TOLERANCE_WITHIN = 0.03  # three standard errors of alpha at 3,200 occasions
TOLERANCE_BETWEEN = 0.01  # at 400 patients, whose true alpha is one


def test_alpha_is_told_apart_within_and_between_patients() -> None:
    rng = np.random.default_rng(SEED)
    codes = np.repeat(np.arange(PATIENTS), SESSIONS)
    trait = rng.normal(0, BETWEEN**0.5, PATIENTS)[codes] + rng.normal(0, WITHIN**0.5, codes.size)
    table = pd.DataFrame({name: trait + rng.normal(size=codes.size) for name in ITEMS}).assign(patient=codes)
    found = psm.scale_reliability(table, items=ITEMS, limits=(-50, 50), patient="patient")["alpha"].to_dict()
    assert abs(found["within patients"] - ALPHA_WITHIN) < TOLERANCE_WITHIN
    assert abs(found["between patients"] - 1) < TOLERANCE_BETWEEN
    assert found["within patients"] < found["all rows"] < found["between patients"]


def test_one_session_a_patient_has_no_parts() -> None:
    table = pd.DataFrame({"patient": [1, 2, 3], "q1": [0, 3, 1], "q2": [1, 3, 2]})
    found = psm.scale_reliability(table, items=["q1", "q2"], limits=(0, 3), patient="patient")
    assert np.isnan([found["alpha"].to_dict()[part] for part in ("within patients", "between patients")]).all()


def test_alpha_needs_items_and_rows() -> None:
    with pytest.raises(psm.DataError, match="at least two items"):
        psm.scale_reliability(ANSWERS, items=["q1"], limits=(0, 3))
    with pytest.raises(psm.DataError, match="at least two rows"):
        psm.scale_reliability(ANSWERS.iloc[[0, 2]], items=ITEMS, limits=(0, 3))

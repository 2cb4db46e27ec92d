"""Bad and awkward input: every case of the pack is refused in our own words, or mended and said."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import psymech as psm
from tests.badinputs_adapter import (
    NOTED_ON_READING,
    REFUSED_ON_READING,
    adapter,
    read_only,
    stored_text,
)

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "badinputs"
PACK = FOLDER / "pack"
ABSENT = "the folder shared/badinputs beside the checkout, which holds the bad-input pack, is absent"
CASES: list[dict[str, Any]] = (
    json.loads((PACK / "manifest.json").read_text(encoding="utf-8"))["cases"] if PACK.is_dir() else []
)
NAMES = {case["name"] for case in CASES}

pytestmark = pytest.mark.skipif(not PACK.is_dir(), reason=ABSENT)


@pytest.fixture(scope="module")
def score():
    """Return the pack's own scorer: (case, result, package) -> (what is wrong, whether it was accepted in silence)."""
    spec = importlib.util.spec_from_file_location("badinputs_check", FOLDER / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score


def named(names: frozenset[str]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in CASES if case["name"] in names]


def test_every_named_case_is_in_the_pack():
    assert REFUSED_ON_READING | NOTED_ON_READING <= NAMES


@pytest.mark.parametrize("case", named(REFUSED_ON_READING))
def test_reading_refuses(case: dict[str, Any], score):
    result = read_only(PACK / case["file"])
    assert result.outcome == "error", result.message
    wrong, _ = score(case, result.as_dict(), "psymech")
    assert wrong == [], result.message


@pytest.mark.parametrize("case", named(NOTED_ON_READING))
def test_reading_mends_and_says_so(case: dict[str, Any], score):
    result = read_only(PACK / case["file"])
    assert result.outcome == "handled", result.message
    wrong, _ = score(case, result.as_dict(), "psymech")
    assert wrong == [], result.message


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_case(case: dict[str, Any], score):
    result = adapter(case, str(PACK / case["file"]), str(PACK))
    wrong, silent = score(case, result, "psymech")
    assert wrong == [], result["message"]
    assert not silent


def test_direct_identifiers_are_stored_nowhere():
    data = psm.SessionData.from_frame(PACK / "privacy_direct_identifiers.csv")
    text = stored_text(data)
    assert "P0101" in text  # the check would be empty if ids were not in the text either
    assert [secret for secret in ("@example.org", "1981-02-03", "Patient Name") if secret in text] == []


def test_reading_writes_no_file_named_by_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data = psm.SessionData.from_frame(PACK / "inject_path_ids.csv")
    assert any("psymech_pwned" in label for label in data.ids["patient"])
    assert list(tmp_path.rglob("*")) == []

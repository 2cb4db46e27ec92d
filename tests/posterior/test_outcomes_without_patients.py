"""Fits of scores after treatment have no patient level: what counts patients and sessions still works."""

from pathlib import Path

import pytest
import xarray as xr

import psymech as psm
from psymech.errors import SpecError
from psymech.posterior.caseload import caseload
from tests.posterior.drawn_trees import drawn_tree

CODES = ("coping", "resources")


@pytest.fixture(scope="module", params=[1, 2], ids=["one outcome", "two outcomes"])
def tree(request: pytest.FixtureRequest) -> xr.DataTree:
    spec = psm.outcomes(list(CODES[: request.param]), techniques=["exposure"])
    return drawn_tree(spec, psm.load_example("process_study"))


def test_one_row_a_patient(tree: xr.DataTree) -> None:
    patients = psm.load_example("process_study").units["patient"]
    for response in ("coping_post", None):
        table = caseload(tree, response=response)
        assert table["n_patients"].sum() == patients["coping_post"].notna().sum()
        assert table["n_sessions"].tolist() == table["n_patients"].tolist()
    summary = psm.summarize_therapists(tree, response="coping_post")
    assert summary["n_patients"].tolist() == caseload(tree, response="coping_post")["n_patients"].tolist()
    with pytest.raises(SpecError, match="no random effects at the level 'patient'"):
        caseload(tree, level="patient")


@pytest.mark.slow
def test_report_of_scores(tree: xr.DataTree, tmp_path: Path) -> None:
    assert psm.report(tree, tmp_path / "report.html").stat().st_size > 10_000

"""Parts of a report that belong to a kind of model, what is withheld from each, and the tables for Word."""

import sys
from pathlib import Path

import pytest
import xarray as xr
from docx import Document

import psymech as psm
from psymech.errors import DataError, SpecError
from psymech.inference.checks import check_sampling
from psymech.reporting import gate as gates
from psymech.reporting.figures import draw_figures
from psymech.reporting.gate import SECTIONS, Gate, Section
from psymech.reporting.privacy import mask
from psymech.reporting.tables import build_tables, shown
from tests.posterior.drawn_trees import drawn_tree
from tests.report.test_report_html import MAX_BYTES, Page

REASON = "a check failed on purpose"
SECTION_OF_TABLE: dict[str, Section] = {
    "effects": "effects",
    "mediation": "effects",
    "variance": "variance",
    "variation": "variance",
    "ingredients": "variance",
    "therapists": "therapists",
    "consistency": "therapists",
}
SECTION_OF_PLACE: dict[str, Section] = {
    "effects": "effects",
    "process": "effects",
    "variance": "variance",
    "therapists": "therapists",
}


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return psm.load_example("process_study")


@pytest.fixture(scope="module")
def mediated(data: psm.SessionData) -> xr.DataTree:
    spec = psm.mediation("phq9", treatment="exposure", mediators=["alliance"], random={"patient": ("a", "b")})
    return drawn_tree(spec, data, draws=30)


@pytest.fixture(scope="module")
def uneven(data: psm.SessionData) -> xr.DataTree:
    spec = psm.process("phq9", techniques=["exposure"], common_factors=["alliance"], residual_by="therapist")
    return drawn_tree(spec, data, draws=30)


def gate_with(tree: xr.DataTree, *closed: Section) -> Gate:
    return Gate(
        check_sampling(tree), None, "not checked", {each: (REASON,) if each in closed else () for each in SECTIONS}
    )


def text_of(page: Path) -> str:
    return Page(page.read_text(encoding="utf-8")).words


def test_a_mediation_report_has_indirect_effects_and_the_path_diagram(
    mediated: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psymech.reporting.html.make_gate", gate_with)
    path = psm.report(mediated, tmp_path / "r.html", tables=tmp_path / "t", word=True)
    assert path.stat().st_size < MAX_BYTES
    text = text_of(path)
    assert "Does exposure go with phq9 through alliance" in text
    assert "Indirect effects" in text and "E[ab] = E[a]E[b] + Cov(a, b)" in text and "Paths by level" in text
    table = psm.mediation_table(mediated)
    indirect = table[(table["effect"] == "indirect") & (table["level"] == "within")]["mean"].item()
    assert shown(indirect) in text and "Techniques and common factors" not in text
    document = Document(str(tmp_path / "t" / "tables.docx"))
    titles = [each.text for each in document.paragraphs if str(each.style and each.style.name).startswith("Heading")]
    assert "Paths and indirect effects" in titles and len(document.tables) >= 5
    cells = {cell.text for word_table in document.tables for row in word_table.rows for cell in row.cells}
    assert shown(indirect) in cells and "exposure -> alliance" in cells


def test_shares_and_consistency_are_told_where_the_model_has_them(
    uneven: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psymech.reporting.html.make_gate", gate_with)
    monkeypatch.setattr("psymech.reporting.figures._png", lambda plot: "data:image/png;base64,")
    text = text_of(psm.report(uneven, tmp_path / "r.html", anonymize=False))
    assert "Techniques and common factors" in text and "Consistency of therapists" in text
    shares = psm.summarize_shares(psm.ingredient_shares(uneven))
    assert shown(float(shares.loc["techniques", "mean"])) in text
    first = psm.consistency(uneven).iloc[0]
    assert shown(float(first["sigma"])) in text and "Indirect effects" not in text


def test_therapists_with_few_patients_are_left_out_of_consistency(uneven: xr.DataTree) -> None:
    masked = mask(uneven, anonymize=True, min_patients=8, seed=1)
    hidden = set(masked.hidden["therapist"])
    made = build_tables(masked, gate_with(uneven), ci_prob=None, higher_is_better=True, withhold=True)
    table = next(each for each in made if each.name == "consistency").frame
    assert hidden and table is not None
    assert set(table["therapist"]) == set(masked.tree["posterior"].dataset["therapist"].values.tolist()) - hidden


@pytest.mark.parametrize("closed", SECTIONS)
@pytest.mark.parametrize("kind", ["mediated", "uneven"])
def test_each_section_is_withheld_in_numbers_and_in_figures(
    kind: str, closed: Section, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = request.getfixturevalue(kind)
    monkeypatch.setattr("psymech.reporting.figures._png", lambda plot: "drawn")
    masked = mask(tree, anonymize=True, min_patients=5, seed=1)
    gate = gate_with(tree, closed)
    for withhold in (True, False):
        made = build_tables(masked, gate, ci_prob=None, higher_is_better=True, withhold=withhold)
        for table in made:
            stopped = SECTION_OF_TABLE.get(table.name) == closed
            if table.name in SECTION_OF_TABLE:
                assert table.withheld == ((REASON,) if stopped else ()), table.name
                assert (table.frame is None) == (stopped and withhold)
        drawn = draw_figures(masked, gate, ci_prob=None, higher_is_better=True, withhold=withhold)
        places = {figure.place for figure in drawn}
        for place, section in SECTION_OF_PLACE.items():
            if place == "process" and kind == "uneven":
                continue
            assert (place not in places) == (section == closed and withhold), place


def test_failed_draws_close_every_section(mediated: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "check_model", lambda tree: (_ for _ in ()).throw(DataError("no data")))
    gate = gates.make_gate(mediated)  # 30 draws a chain cannot be judged
    assert all("fewer than 100" in " ".join(gate.reasons[section]) for section in SECTIONS)
    assert "no data" in gate.model_missing


def test_word_without_its_library_or_its_folder_is_refused(
    uneven: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="tables="):
        psm.report(uneven, tmp_path / "r.html", word=True)
    monkeypatch.setattr("psymech.reporting.tables.make_gate", gate_with)
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(DataError, match=r"psymech\[word\]"):
        psm.write_tables(uneven, tmp_path / "t", word=True)

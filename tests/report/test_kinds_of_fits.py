"""A report on fits of which not everything can be said: latent means, imputed mediators, shared therapists, stopped
runs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.posterior import tree as read
from psymech.posterior.model_report import ModelCheck
from psymech.reporting import words as said
from psymech.reporting.gate import make_gate
from psymech.reporting.gate import said as failed
from psymech.reporting.html import _cells
from psymech.reporting.privacy import mask
from psymech.reporting.tables import Table, _variance, _variation, build_tables, shown
from tests.models.test_mediation_missing import SPECS, frame_of, holed
from tests.models.test_membership import MULTIPLE, TO_DATE, as_data, membership_study
from tests.plots.test_figures import artist
from tests.posterior.drawn_trees import drawn_tree
from tests.posterior.fitted_trees import make_tree
from tests.posterior.mediation_trees import chosen_tree
from tests.report.test_report_html import Page

IMAGE = re.compile(r'src="data:image/png;base64,')
SLOPES: Mapping[names.Level, Sequence[str]] = {"patient": ("a", "b"), "therapist": ("a",)}


def page_of(tree: xr.DataTree, folder: Path, *, withhold: bool = False) -> tuple[str, int]:
    """Words of the page, and how many figures it has."""
    text = psm.report(tree, folder / "r.html", withhold=withhold, tables=folder / "t").read_text(encoding="utf-8")
    return Page(text).words, len(IMAGE.findall(text))


def test_latent_means_with_random_slopes(tmp_path: Path) -> None:
    data = psm.SessionData.from_frame(frame_of())
    latent = psm.mediation("y", treatment="x", mediators="m", decompose="latent", time=None, random=SLOPES)
    words, figures = page_of(chosen_tree(latent, data), tmp_path)
    assert "latent means of patients and therapists, which were estimated with the model" in words
    paths = psm.mediation_table(chosen_tree(latent, data))
    within = paths[(paths["effect"] == "indirect") & (paths["level"] == "within")]["mean"].item()
    assert shown(within) in words and "Fixed effects for one unit of each column" in words
    assert "above the patient's own average: difference in y." in words
    assert "The model was not checked against the data" in words  # its columns are parameters
    assert (tmp_path / "t" / "mediation.csv").read_text(encoding="utf-8").count("\n") > 5
    assert figures >= 4  # the design, the paths, the effects of equations with columns


def test_imputed_mediators(tmp_path: Path) -> None:
    tree = chosen_tree(SPECS["1-1-1"], holed())
    words, figures = page_of(tree, tmp_path)
    assert "4 missing values of mediators were parameters of the model" in words
    assert shown(float(tree["posterior"].dataset["beta"].sel(term="y~m.within").mean())) in words
    assert figures >= 4 and "hold imputed values of a mediator" in words
    reason = "this estimate reads the model's columns"
    assert words.count(f"): {reason}") <= 3  # once a section, not once a figure


@pytest.mark.parametrize("spec", [TO_DATE, MULTIPLE], ids=["to date", "multiple"])
def test_patients_shared_among_therapists(spec: psm.ModelSpec, tmp_path: Path) -> None:
    data = as_data(membership_study(therapists=6, patients=30, seed=3))
    tree = drawn_tree(spec, data)
    words, figures = page_of(tree, tmp_path)
    assert "shared among their therapists in proportion to sessions" in words
    assert "shared by weights that sum to one" in words and figures >= 5
    assert "Caseload: the sum of the shares in patients." in words
    table = psm.summarize_therapists(tree)
    for value in table["caseload"]:
        assert shown(float(value)) in words
    assert "needs patients nested in therapists" in words  # what was not checked, and why


def test_an_interrupted_run_is_told_and_its_numbers_withheld(tmp_path: Path) -> None:
    tree = make_tree(draws=200)
    beta = tree["posterior"].dataset["beta"].sel(term="alliance.within").mean()
    whole, _ = page_of(tree, tmp_path)
    assert shown(float(beta)) in whole and "interrupted" not in whole
    assert "above the patient's own average: difference in phq9." in whole and not re.search(r"\{\w*\}", whole)
    tree.attrs[names.ATTR_INTERRUPTED] = json.dumps({"asked": 900, "made": [250, 200, 0], "kept_chains": [0, 1]})
    words, _ = page_of(tree, tmp_path, withhold=True)
    assert "Sampling was interrupted: its chains made 250, 200, 0 of 900 draws" in words
    assert "Draws: not" in words and shown(float(beta)) not in words
    for table in ("effects", "variance", "variation", "therapists"):
        assert (tmp_path / "t" / f"{table}.csv").read_text(encoding="utf-8").startswith("withheld")


def test_scores_of_patients_are_not_called_sessions() -> None:
    spec = psm.outcomes(["psychopathology_post", "coping_post"], techniques=["exposure"])
    tree = drawn_tree(spec, psm.load_example("process_study"))
    assert said.unit_of_scores(tree) == "patient"
    assert said.counts(tree) == {"patient": 132, "therapist": 20}
    headings = [heading for heading, _ in said.levels_drawn(tree)]
    assert headings == ["20 therapists", "132 patients, one score of each outcome"]
    shares, spread = _variance(tree, None), _variation(tree, None)
    assert shares["of the variance of"].unique().tolist() == ["one outcome per patient"]
    assert set(shares["between"]) == {"therapists", "patients (residual)"}
    assert "session" not in spread["level"].tolist()
    levels = " ".join(text for _, text in said.levels_drawn(tree))
    assert "correlated within a patient" in levels and "session" not in levels
    assert "psychopathology_post<sub>ik</sub>" in said.equations(tree)[0]
    assert not any("difference in average" in said.estimand(info, tree) for info in read.terms_of(tree))
    panels = psm.plot_design(tree, backend="matplotlib").viz["figure"].item().axes
    assert len(panels) == 1 and panels[0].get_title() == "20 therapists, median 7 patients"
    pair = psm.plot_therapists(tree, response="coping_post", backend="matplotlib").viz["figure"].item().axes
    assert pair[0].get_xlabel().startswith("Intercept of coping_post: deviation from the average therapist")
    gate = make_gate(tree)
    made = build_tables(
        mask(tree, anonymize=False, min_patients=5, seed=None),
        gate,
        ci_prob=None,
        higher_is_better=True,
        withhold=False,
    )
    columns = next(table.frame for table in made if table.name == "therapists")
    assert columns is not None and "n_patients" in columns and "n_sessions" not in columns


def test_outcomes_of_sessions_and_of_patients_are_counted_apart() -> None:
    spec = psm.outcomes(["phq9", "coping_post"], techniques=["exposure"], level={"phq9": "session"})
    tree = drawn_tree(spec, psm.load_example("process_study"), draws=5)
    assert said.unit_of_scores(tree) == "session"
    alone = drawn_tree(psm.process("phq9", techniques=["exposure"]), psm.load_example("process_study"), draws=5)
    assert said.counts(tree)["session"] == said.counts(alone)["session"]


def test_lagged_predictors_are_said_to_be_of_the_session_before() -> None:
    data = psm.load_example("process_study")
    lagged = drawn_tree(psm.process("phq9", techniques=["exposure"], lag=1, time="log"), data, draws=5)
    plain = drawn_tree(psm.process("phq9", techniques=["exposure"]), data, draws=5)
    gate = make_gate(lagged)
    within = {i.label: said.estimand(i, lagged) for i in read.terms_of(lagged)}
    assert within["exposure.within"].startswith("Same patient, a session after one with exposure one unit above")
    assert within["time"] == "Change of phq9 per unit of log(1 + time since the earliest)."
    words = said.methods(lagged, gate, "89%")
    assert "Deviations of exposure within patients were those of the session before." in words
    assert "Time entered as log(1 + time since the earliest)." in words
    assert "session before" not in said.methods(plain, make_gate(plain), "89%")
    assert "Time entered" not in said.methods(plain, make_gate(plain), "89%")


def test_words_of_ordinal_outcomes_and_letters() -> None:
    data = psm.load_example("process_study")
    frame = data.sessions.assign(state=data.sessions["phq9"] // 10 + 1)
    spec = psm.process("state", common_factors=["alliance"], family="ordinal")
    tree = drawn_tree(spec, psm.SessionData.from_frame(frame), draws=5)
    words = {i.label: said.estimand(i, tree) for i in read.terms_of(tree)}
    assert words["alliance.patient"].endswith("difference in average log odds of a higher state. All else equal.")
    assert "&gt; j)" in said.equations(tree)[0] and "−κ<sub>j</sub>" in said.equations(tree)[0]
    assert said.letters(tree) == (
        "t: session, i: patient, k: therapist. β: the same for all; u, v: deviations of single patients and "
        "therapists; κ: thresholds between categories j and j + 1."
    )
    axis = psm.plot_ppc(tree, level="session", draws=5, backend="matplotlib").viz["figure"].item().axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3"]
    means = psm.plot_ppc(tree, level="patient", draws=5, backend="matplotlib")
    expected = np.sort(frame.groupby("patient")["state"].mean().to_numpy())
    drawn = np.asarray(artist(means, "observed_patient").get_offsets())[:, 1]
    np.testing.assert_allclose(drawn, expected)


def test_partially_nested_designs_draw_the_therapists_of_their_arm(tmp_path: Path) -> None:
    frame = psm.load_example("process_study").sessions
    untreated = frame["patient"].str[-1].astype(int) % 4 == 0
    frame = frame.assign(treated=(~untreated).astype(int), therapist=frame["therapist"].where(~untreated, "untreated"))
    spec = psm.growth("phq9", moderators=["treated"], random={"therapist": []}, therapist_in="treated")
    tree = drawn_tree(spec, psm.SessionData.from_frame(frame), draws=60)
    words, _ = page_of(tree, tmp_path)
    assert "Each therapist's deviation from the average therapist, rank and caseload." in words
    assert "those without therapists (treated = 0) included" in words
    assert "Therapists' effects entered for patients with treated = 1 only (partial nesting)." in words


def test_the_check_that_failed_names_its_outcome_where_there_are_several() -> None:
    check = ModelCheck("lag", "session", "alliance", 0.3, -0.1, 0.1, 0.0, "failed", ("effects",), "They correlate.", "")
    data = psm.SessionData.from_frame(frame_of())
    one = drawn_tree(psm.growth("y", random={"therapist": None}), data, draws=5)
    assert failed(check, one) == "They correlate."
    assert failed(check, chosen_tree(SPECS["1-1-1"], data)) == "alliance: They correlate."


def test_what_a_limit_rejects_is_not_shown_as_the_limit() -> None:
    frame = pd.DataFrame(
        {"figure": ["R-hat", "chains", "ESS"], "value": [1.0143, 2.0, 248.2], "ok": [False, True, True]}
    )
    cells = _cells(Table("sampling", "Checks", "", frame), "89%", None, "")
    assert [row[1] for row in cells.rows] == ["1.014", "2", "248"] and cells.css == ("s", "n", "s")
    shares = pd.DataFrame({"between": ["therapists"], "share": [0.00009]})
    assert _cells(Table("variance", "Shares", "", shares), "89%", None, "").rows == (("therapists", "<0.001"),)


def test_patients_with_several_therapists_are_not_said_to_be_nested() -> None:
    data = as_data(membership_study(therapists=6, patients=30, seed=3))
    tree = drawn_tree(psm.growth(TO_DATE.responses[0].column), data, draws=60)
    words = said.methods(tree, make_gate(tree), "89%")
    assert "sessions, 30 patients and 6 therapists)" in words and "Patients were crossed with therapists" in words
    assert "; patients cross from one to another" in said.levels_drawn(tree)[0][1]
    nested = drawn_tree(psm.growth("phq9"), psm.load_example("process_study"), draws=5)
    assert not said.crossed(nested) and "(2,209 sessions in 149 patients in 20 therapists)" in said.methods(
        nested, make_gate(nested), "89%"
    )

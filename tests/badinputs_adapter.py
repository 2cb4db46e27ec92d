"""The bad-input pack through psymech's own doors: read, check, design, predict.

`adapter` has the signature that the pack's scorer expects.  Predictions use a tree of the clean table's design
with invented draws: what is tested is how new data are taken, for which their values do not matter.
"""

import csv
import io
import json
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import psymech as psm
from psymech.data.checks import data_report
from psymech.design import make_design
from psymech.reporting.tables import write_tables
from tests.posterior.drawn_trees import drawn_tree

# Cases that reading alone must refuse, and cases that it must mend and say so; the rest is decided by model and design.
REFUSED_ON_READING = frozenset(
    {
        "ids_reused_across_therapists",
        "patient_bigint_one_missing",
        "therapist_initials_NA",
        "patient_blank_string",
        "patient_id_5000_chars",
        "duplicate_rows_exact",
        "session_ties_everywhere",
        "session_negative",
        "session_text",
        "session_typed_date_int",
        "session_missing",
        "outcome_out_of_range",
        "outcome_infinite",
        "outcome_overflow",
        "file_zero_bytes",
        "file_latin1",
        "file_short_row",
        "file_totals_row",
        "file_wide_format",
        "file_nul_byte",
        "predict_type_changed",
    }
)
NOTED_ON_READING = frozenset(
    {
        "therapist_trailing_space",
        "therapist_unicode_nfc_nfd",
        "file_tab_separated",
        "file_unnamed_index",
        "privacy_direct_identifiers",
    }
)


@dataclass(frozen=True)
class Outcome:
    """What a call came to, in the words of the scorer."""

    outcome: str
    message: str
    exc: str
    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "message": self.message, "exc": self.exc, "facts": self.facts}


def process_spec(*, autoregressive: bool = False) -> psm.ModelSpec:
    return psm.process(
        "phq9",
        techniques=["exposure", "restructuring"],
        common_factors=["alliance", "empathy"],
        covariates=["severity_pre"],
        slopes={"therapist": ["exposure.within"]},
        autoregressive=autoregressive,
        time="linear",
    )


def read_only(path: str | Path) -> Outcome:
    """Read a table and nothing else."""
    try:
        data = psm.SessionData.from_frame(path)
    except psm.PsymechError as error:
        return _refused(error)
    return Outcome("handled", "\n".join(str(note) for note in data.notes), "", facts_of(data))


def adapter(case: dict[str, Any], path: str, pack: str) -> dict[str, Any]:
    """Read, check the data, make the design; for a prediction, predict the table's rows."""
    if case["call"] == "predict":
        return predicted(path, pack).as_dict()
    try:
        data = psm.SessionData.from_frame(path)
        data_report(data).raise_errors()
        report = make_design(process_spec(autoregressive=case["call"] == "lag"), data).report
        report.raise_errors()
    except psm.PsymechError as error:
        return _refused(error).as_dict()
    message = "\n".join(str(finding) for finding in report.findings)
    facts = facts_of(data)
    if case["call"] == "report":
        facts |= report_facts(data, case["check"])
    return Outcome("handled", message, "", facts).as_dict()


@cache
def clean_tree(pack: str) -> xr.DataTree:
    """Tree of the process model on the pack's clean table."""
    return drawn_tree(process_spec(), psm.SessionData.from_frame(Path(pack) / "clean_base.csv"))


def predicted(path: str, pack: str) -> Outcome:
    """Predict the rows of a table, twice with one seed; the message holds the notes and the warnings."""
    tree = clean_tree(pack)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first = psm.predict(tree, path, kind="draw", seed=7)
            again = psm.predict(tree, path, kind="draw", seed=7)
    except psm.PsymechError as error:
        return _refused(error)
    message = "\n".join([str(first.attrs["notes"]), *(str(each.message) for each in caught)])
    same = bool(np.array_equal(first.values, again.values))
    return Outcome("handled", message, "", {"repeatable": same, "n_rows": first.sizes["obs"]})


def report_facts(data: psm.SessionData, check: dict[str, Any]) -> dict[str, Any]:
    """Write the fit, the report and the tables of a design with invented draws, and look into what was written."""
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws without a meaning
        folder = Path(name)
        tree = drawn_tree(process_spec(), data, draws=120)
        saved = psm.save(tree, folder / "fit.nc").read_bytes()
        page = psm.report(tree, folder / "report.html", withhold=False, tables=folder / "tables", seed=1).read_text()
        identified = folder / "identified"
        write_tables(tree, identified, anonymize=False, withhold=False)
        cells = [
            cell
            for path in [*(folder / "tables").glob("*.csv"), *identified.glob("*.csv")]
            for row in csv.reader(path.read_text().splitlines())
            for cell in row
        ]
        texts = [cell for cell in cells if not is_number(cell)]
        assert texts, "no table was written"
        if "saved_fit_lacks" in check:
            stored = saved.decode("latin-1") + stored_text(data) + json.dumps(dict(tree.attrs), default=str)
            facts["saved_fit_lacks"] = [secret for secret in check["saved_fit_lacks"] if secret not in stored]
        if "report_lacks" in check:
            facts["report_lacks"] = [secret for secret in check["report_lacks"] if secret not in page]
        starts = "export_cells_never_start_with"
        if starts in check:
            facts[starts] = [mark for mark in check[starts] if not any(text.startswith(mark) for text in texts)]
        if "no_file" in check:
            places = [folder, Path.cwd(), folder.parent]
            found = any(check["no_file"] in path.name for place in places for path in place.glob("*"))
            facts["no_file"] = "found" if found else check["no_file"]
    return facts


def is_number(cell: str) -> bool:
    """Whether a spreadsheet reads a cell as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def facts_of(data: psm.SessionData) -> dict[str, Any]:
    outcome = data.values("phq9")
    observed = outcome == outcome
    return {
        "n_rows": data.n_sessions,
        "n_patients": data.n_patients,
        "n_therapists": data.n_therapists,
        "n_outcome_observed": int(observed.sum()),
        "n_patients_with_outcome": len(set(data.codes["patient"][observed].tolist())),
    }


def stored_text(data: psm.SessionData) -> str:
    """Everything that SessionData holds, as text."""
    buffer = io.StringIO()
    data.sessions.to_csv(buffer)
    for table in data.units.values():
        table.to_csv(buffer)
    return buffer.getvalue() + "\n".join(str(note) for note in data.notes) + repr(data)


def _refused(error: psm.PsymechError) -> Outcome:
    kind = type(error)
    return Outcome("error", str(error), f"{kind.__module__}.{kind.__qualname__}", {})

"""The gate: which numbers may be shown, and why others are withheld."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import xarray as xr

from psymech.errors import PsymechError
from psymech.inference.checks import SamplingReport, check_sampling
from psymech.posterior import tree as read
from psymech.posterior.model_checks import check_model
from psymech.posterior.model_report import ModelCheck, ModelReport

Section = Literal["effects", "variance", "therapists"]
SECTIONS: Final[tuple[Section, ...]] = get_args(Section)


@dataclass(frozen=True, slots=True)
class Gate:
    """Checks of a fit, and for each kind of number the reasons to withhold it (none: it may be shown)."""

    sampling: SamplingReport
    model: ModelReport | None
    model_missing: str
    reasons: dict[Section, tuple[str, ...]]

    def closed(self, section: Section) -> bool:
        """Whether a kind of number must not be shown."""
        return bool(self.reasons[section])


def said(check: ModelCheck, tree: xr.DataTree) -> str:
    """Return what a check found, after the outcome that it is about where the fit has several."""
    return f"{check.response}: {check}" if check.response and len(read.responses_of(tree)) > 1 else str(check)


def make_gate(tree: xr.DataTree) -> Gate:
    """Check the draws and the model, and say what each failure makes doubtful.

    Draws that failed, or that could not be judged, close everything; a check of the model closes what it concerns.
    """
    sampling = check_sampling(tree)
    model, missing = None, ""
    try:
        model = check_model(tree)
    except PsymechError as problem:
        missing = f"The model was not checked against the data: {problem}"
    of_draws = tuple(str(message) for message in sampling.messages if message.kind != "note")
    if sampling.ok:
        of_draws = ()
    elif not of_draws:
        of_draws = (f"The draws are {sampling.verdict}.",)
    reasons: dict[Section, tuple[str, ...]] = {}
    for section in SECTIONS:
        of_model = () if model is None else tuple(said(check, tree) for check in model.doubtful(section))
        reasons[section] = (*of_draws, *of_model)
    return Gate(sampling, model, missing, reasons)

"""The design at a glance: caseloads, sessions per patient, who is still there at which session."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.plots import canvas as draw
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows, rows_of_sessions

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

Ints = NDArray[np.int64]
GAP: Final = 0.06  # of a bar's width, left free at either side
MANY_BARS: Final = 60  # more than this have no gaps, which would be narrower than a dot
SESSIONS: Final = ("sessions", "presence")  # panels
MAX_BARS: Final = 30  # more different numbers of sessions than this are put together into bins


@dataclass(frozen=True, slots=True)
class Counts:
    """Patient of each row; distinct pairs (therapist, patient), None without therapists; the number of each row's
    session, None where every outcome has one score a patient.
    """

    patient: Ints
    pairs: Ints | None
    session: NDArray[np.float64] | None


def plot_design(data: SessionData | xr.DataTree, *, smallest: int = 1, backend: str | None = None) -> "PlotCollection":
    """Draw patients per therapist, sessions per patient, and how many patients have each session.

    Parameters
    ----------
    data : SessionData or DataTree
        A table, or a fitted tree with its data (the rows of the likelihood: sessions with an observed outcome).
    smallest : int
        Counts of patients below this are not drawn, so that no small group shows; where that is a single one, the next
        larger is left out as well, since the total would give it away.
    backend : {"matplotlib", "plotly"}, optional

    Returns
    -------
    PlotCollection
        Panels ``caseload`` (left out without therapists), ``sessions`` and ``presence`` (both left out where every
        outcome has one score a patient); not shown.

    Raises
    ------
    SpecError
        `smallest` below 1, or a fit with neither therapists nor sessions.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_design(psm.load_example("process_study")).savefig("design.png")
    """
    counts = _counts(data)
    if smallest < 1:
        raise SpecError(f"smallest: expected 1 or more, found {smallest!r}.")
    panels = [*(["caseload"] if counts.pairs is not None else []), *(SESSIONS if counts.session is not None else [])]
    if not panels:
        raise SpecError("The fit has one score a patient and no therapists: there is no design to draw.")
    collection = draw.canvas(panels, width=4.0 * len(panels), height=3.8, ratios=None, backend=backend, share_y=False)
    n_patients = np.unique(counts.patient).size
    if counts.pairs is not None:
        _caseload(collection, counts, smallest)
    if counts.session is not None:
        _sessions(collection, counts, smallest, n_patients)
        _presence(collection, counts.patient, counts.session, smallest)
    if smallest > 1:
        draw.title(collection, f"Counts of fewer than {smallest} patients are not drawn", size=11)
    return collection


def without_small(counts: np.ndarray, smallest: int) -> np.ndarray:
    """Set counts below `smallest` to zero, and one more where only one was: it would follow from the total.

    >>> without_small(np.array([9, 3, 6, 0]), 5).tolist()
    [9, 0, 0, 0]
    """
    kept = np.where(counts < smallest, 0, counts)
    if int(((counts > 0) & (kept == 0)).sum()) == 1 and (kept > 0).any():
        kept[np.flatnonzero(kept == kept[kept > 0].min())[-1]] = 0
    return kept


def _counts(data: SessionData | xr.DataTree) -> Counts:
    if isinstance(data, SessionData):
        patient, therapist = data.codes["patient"], data.codes.get("therapist")
        pairs = None if therapist is None else np.unique(np.column_stack([therapist, patient]), axis=0)
        return Counts(patient, pairs, data.session)
    observed = np.isfinite(read.outcome(data))
    constants = read.constants(data, columns=False)
    patient = patient_of_rows(data)
    session = constants[names.SESSION_OF_OBS].values.astype(float)
    of_sessions = rows_of_sessions(data)
    seen = np.flatnonzero(observed)
    if of_sessions.size:
        seen = np.intersect1d(seen, of_sessions)
    _, first = np.unique(np.stack([patient, session])[:, seen], axis=1, return_index=True)  # several responses
    rows = np.sort(seen[first])
    has_therapists = names.group_of_obs("therapist") in constants
    at_risk = np.intersect1d(rows, read.rows_at_risk(data, "therapist"))
    pairs = read.unit_pairs(data, "therapist", patient, at_risk) if has_therapists else None
    return Counts(patient[rows], pairs, session[rows] if of_sessions.size else None)


def _bars(
    collection: "PlotCollection", name: str, left: np.ndarray, height: np.ndarray, width: float, colour: str
) -> None:
    module, target = draw.drawing(collection), draw.panel(collection, name)
    gap = GAP * width if left.size <= MANY_BARS else 0.0
    starts, ends = left + gap, left + width - gap
    if collection.backend == "matplotlib":  # draws steps, each up to the next start: steps of height zero in between
        starts, ends = np.stack([starts, ends], axis=1).ravel()[:-1], ends[-1:]
        height = np.stack([height, np.zeros_like(height)], axis=1).ravel()[:-1]
    bars = module.hist(height, starts, ends, target, color=colour, edgecolor=colour, alpha=0.9)
    draw.keep(collection, f"bars_{name}", bars)
    marks = draw.whole_ticks(0, int(height.max()))
    module.yticks(marks, [f"{mark:,}" for mark in marks], target)


def _caseload(collection: "PlotCollection", counts: Counts, smallest: int) -> None:
    assert counts.pairs is not None
    load = np.sort(np.unique(counts.pairs[:, 0], return_counts=True)[1])[::-1]
    module, target = draw.drawing(collection), draw.panel(collection, "caseload")
    _bars(collection, "caseload", np.arange(load.size) - 0.5, without_small(load, smallest), 1.0, draw.ORANGE)
    module.title(
        f"{load.size} therapists, median {np.median(load):g} patients", target, size=draw.letters(collection, 10)
    )
    module.xlabel("therapists, sorted", target)
    module.ylabel("patients", target)
    module.xticks([], [], target)


def _sessions(collection: "PlotCollection", counts: Counts, smallest: int, n_patients: int) -> None:
    per_patient = np.unique(counts.patient, return_counts=True)[1]
    width = max(1, int(np.ceil((per_patient.max() - per_patient.min() + 1) / MAX_BARS)))
    edges = np.arange(per_patient.min(), per_patient.max() + width + 1, width) - 0.5
    height, _ = np.histogram(per_patient, edges)
    height = without_small(height, smallest)
    module, target = draw.drawing(collection), draw.panel(collection, "sessions")
    _bars(collection, "sessions", edges[:-1], height, width, draw.BLUE)
    module.title(
        f"{n_patients} patients, median {np.median(per_patient):g} sessions", target, size=draw.letters(collection, 10)
    )
    if per_patient.max() - per_patient.min() < 8:  # a narrow axis would be marked at fractions of a session
        marks = np.unique(per_patient)
        module.xticks(marks, [str(mark) for mark in marks], target)
    module.xlabel("sessions of a patient", target)
    module.ylabel("patients", target)


def _presence(collection: "PlotCollection", patient: Ints, session: NDArray[np.float64], smallest: int) -> None:
    pairs = np.unique(np.stack([session, patient]), axis=1)
    sessions, there = np.unique(pairs[0], return_counts=True)
    there = without_small(there, smallest)
    keep = there > 0
    module, target = draw.drawing(collection), draw.panel(collection, "presence")
    if sessions.size > 100:
        line = module.line(sessions[keep], there[keep], target, color=draw.GREEN, width=1.5)
        draw.keep(collection, "bars_presence", line)
    else:
        step = float(np.diff(sessions).min()) if sessions.size > 1 else 1.0
        left = sessions[keep] - 0.5 * step
        _bars(collection, "presence", left, there[keep], step, draw.GREEN)
    module.title(f"{session.size:,} sessions in all", target, size=draw.letters(collection, 10))
    module.xlabel("session number", target)
    module.ylabel("patients with this session", target)

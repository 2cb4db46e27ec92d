"""The figures of a report, as PNG inside the page."""

import io
import warnings
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import xarray as xr

from psymech import names
from psymech.errors import PsymechError
from psymech.plots.design import plot_design
from psymech.plots.effects import plot_effects
from psymech.plots.paths import plot_paths
from psymech.plots.ppc import plot_ppc
from psymech.plots.ranks import plot_ranks
from psymech.plots.therapists import plot_therapists
from psymech.plots.trajectories import plot_trajectories
from psymech.plots.variance import plot_variance_partition
from psymech.posterior import tree as read
from psymech.reporting.gate import Gate, Section
from psymech.reporting.privacy import Masked
from psymech.reporting.process import is_mediation
from psymech.reporting.words import unit_of_scores

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

PLACES: Final = ("data", "model", "effects", "process", "variance", "therapists")
DOTS: Final = 130  # an inch: sharp on a screen and in a printed page, about 60 kB a figure


type Plot = Callable[[], PlotCollection]
type Add = Callable[[str, str, Section | None, Plot], None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One figure: the section it belongs to, its caption, and the image as a data address (None: why there is none)."""

    place: str
    caption: str
    image: str | None
    missing: tuple[str, ...] = ()


def draw_figures(
    masked: Masked, gate: Gate, *, ci_prob: float | None, higher_is_better: bool, withhold: bool
) -> tuple[Drawn, ...]:
    """Draw what may be shown; figures of withheld numbers give the reasons instead."""
    tree = masked.tree
    found: list[Drawn] = []

    def add(place: str, caption: str, section: Section | None, plot: Plot) -> None:
        reasons = gate.reasons[section] if section is not None and withhold else ()
        if reasons:
            return  # the table beside it gives the reasons
        try:
            found.append(Drawn(place, caption, _png(plot)))
        except PsymechError as problem:
            found.append(Drawn(place, caption, None, (str(problem),)))

    smallest = masked.min_patients if masked.anonymous else 1
    add(
        "data",
        "Caseloads, sessions of a patient, and how many patients have each session."
        if unit_of_scores(tree) == "session"
        else "Caseloads.",
        None,
        lambda: plot_design(tree, smallest=smallest, backend="matplotlib"),
    )
    if is_mediation(tree):
        add(
            "process",
            "Paths by level: posterior mean and interval; grey where the interval holds zero.",
            "effects",
            lambda: plot_paths(tree, ci_prob=ci_prob),
        )
    for response in read.responses_of(tree):
        of = f" ({response})" if len(read.responses_of(tree)) > 1 else ""
        _of_response(add, masked, response, of, ci_prob)
        term = _term_of_therapists(tree, response)
        if term is not None:
            _therapists(add, masked, response, term, of, ci_prob, higher_is_better)
    return _merged(found)


def _merged(figures: list[Drawn]) -> tuple[Drawn, ...]:
    """Put figures of one place together that are missing for the same reasons, so that these are read once."""
    captions: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for each in figures:
        if each.image is None:
            captions.setdefault((each.place, each.missing), []).append(each.caption)
    missing = [Drawn(place, " ".join(of), None, reasons) for (place, reasons), of in captions.items()]
    return (*(each for each in figures if each.image is not None), *missing)


def _of_response(add: Add, masked: Masked, response: str, of: str, ci_prob: float | None) -> None:
    tree = masked.tree
    panels = "session" if masked.anonymous else None  # a point for each patient's mean is a point for a person
    add(
        "model",
        f"What was observed beside what the model predicts{of}.",
        None,
        lambda: plot_ppc(tree, level=panels, response=response, ci_prob=ci_prob, draws=200, backend="matplotlib"),
    )
    known = _columns_are_known(tree)
    add(
        "effects",
        f"Fixed effects for one SD of each column, so that they can be compared{of}."
        if known
        else f"Fixed effects for one unit of each column{of}.",
        "effects",
        lambda: plot_effects(
            tree, response=response, scale="sd" if known else "raw", ci_prob=ci_prob, backend="matplotlib"
        ),
    )
    if _has_time(tree, response):
        add(
            "effects",
            f"Expected course with its interval{of}.",
            "effects",
            lambda: _course(masked, response, ci_prob),
        )
    add(
        "variance",
        f"Where the variance of one {read.level_of_response(tree, response)}'s outcome lies{of}.",
        "variance",
        lambda: plot_variance_partition(tree, response=response, ci_prob=ci_prob, backend="matplotlib"),
    )


def _therapists(
    add: Add,
    masked: Masked,
    response: str,
    term: str,
    of: str,
    ci_prob: float | None,
    higher_is_better: bool,
) -> None:
    tree = masked.tree
    hidden = set(masked.hidden.get("therapist", ()))
    every = read.unit_labels(tree, "therapist")
    units = [every[i] for i in read.units_with_rows(tree, "therapist") if str(every[i]) not in hidden]
    if not units:
        return
    several = len(read.responses_of(tree)) > 1
    owner = response if several else None
    add(
        "therapists",
        f"Each therapist's deviation from the average therapist, rank and caseload{of}.",
        "therapists",
        lambda: plot_therapists(
            tree,
            term=term,
            response=owner,
            ci_prob=ci_prob,
            higher_is_better=higher_is_better,
            units=units,
            backend="matplotlib",
        ),
    )
    if not hidden:
        add(
            "therapists",
            f"How far the data order the therapists{of}.",
            "therapists",
            lambda: plot_ranks(
                tree,
                term=term,
                response=owner,
                ci_prob=ci_prob,
                higher_is_better=higher_is_better,
                backend="matplotlib",
            ),
        )


def _course(masked: Masked, response: str, ci_prob: float | None) -> "PlotCollection":
    tree = masked.tree
    level = "clinic" if masked.hidden.get("therapist") else "therapist"  # lines of small caseloads are not drawn
    return plot_trajectories(
        tree,
        response=response,
        level=level,
        max_patients=0 if masked.anonymous else 80,
        smallest=masked.min_patients if masked.anonymous else 1,
        ci_prob=ci_prob,
        backend="matplotlib",
    )


def _columns_are_known(tree: xr.DataTree) -> bool:
    """Whether the columns are data: in some models they hold parameters, and some fits were saved without them."""
    try:
        read.constants(tree)
    except PsymechError:
        return False
    return True


def _has_time(tree: xr.DataTree, response: str) -> bool:
    several = len(read.responses_of(tree)) > 1
    return any(i.role == "time" and (not several or i.response == response) for i in read.terms_of(tree))


def _term_of_therapists(tree: xr.DataTree, response: str) -> str | None:
    """The therapists' intercept: in a partially nested design the slope of the arm that has therapists."""
    if "therapist" not in read.levels_of(tree):
        return None
    term = read.json_attr(tree, names.ATTR_SPEC).get("therapist_in") or names.INTERCEPT
    labels = read.labels_of(read.posterior(tree), names.term_dim("therapist"))
    return term if term in labels or read.response_label(response, term) in labels else None


def _png(plot: Plot) -> str:
    """Draw and return a data address; names are drawn as they are, never read as mathematics."""
    import matplotlib
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        before = set(plt.get_fignums())
        try:
            plot().viz["figure"].item().savefig(buffer, format="png", dpi=DOTS, metadata={"Software": None})
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode('ascii')}"

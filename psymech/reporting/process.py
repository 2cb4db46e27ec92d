"""Tables of what happens in the treatment: indirect effects, shares of ingredients, therapists' consistency."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pandas as pd
import xarray as xr

from psymech import names
from psymech.posterior import tree as read
from psymech.posterior.mediation_table import mediation_table
from psymech.posterior.residuals import consistency
from psymech.posterior.shares import ingredient_shares, summarize_shares
from psymech.posterior.sources import COMMON_FACTORS, INTERACTION, MATCHING, TECHNIQUES
from psymech.reporting.gate import Section
from psymech.reporting.privacy import Masked

MEDIATION: Final = "mediation"
SHARES: Final = "ingredients"
CONSISTENCY: Final = "consistency"
INGREDIENTS: Final = frozenset({"technique", "common_factor"})


@dataclass(frozen=True, slots=True)
class Part:
    """A table that a fit may have: file name, title, the estimand in words, which checks it hangs on, the numbers."""

    name: str
    title: str
    note: str
    section: Section
    frame: Callable[[], pd.DataFrame]


def is_mediation(tree: xr.DataTree) -> bool:
    """Whether the fit is of a mediation model."""
    return read.json_attr(tree, names.ATTR_SPEC)["kind"] == "mediation"


def process_parts(masked: Masked, *, ci_prob: float | None, percent: str) -> tuple[Part, ...]:
    """Return the tables that belong to a kind of model: none, one or several."""
    tree = masked.tree
    found: list[Part] = []
    if is_mediation(tree):
        found.append(
            Part(
                MEDIATION,
                "Paths and indirect effects",
                "An indirect effect is how much the outcome is expected to change with the treatment through the "
                "mediator; within patients it is the product of both paths averaged over patients and therapists, "
                "E[ab] = E[a]E[b] + Cov(a, b), not the product of the average paths. Direct: what the treatment goes "
                "with at the same value of the mediator; total: both. Outcome units per unit of the treatment, at the "
                f"level named; posterior mean, SD and {percent} interval. An effect of a cause only where nothing "
                "unmeasured goes with mediator and outcome.",
                "effects",
                lambda: mediation_table(tree, ci_prob=ci_prob),
            )
        )
    if any(info.role in INGREDIENTS for info in read.terms_of(tree)) and not is_mediation(tree):
        found.append(
            Part(
                SHARES,
                "Shares of techniques, common factors, patients and therapists",
                "Percent of the outcome's variance that goes with each source in these data: each source gets the "
                "average, over all orders of entry, of what it adds to the sources before it. A share describes how "
                f"much of the differences goes with a source, not how much the source works. Mean, SD and {percent} "
                "interval; if unrelated: the share that a source would show although its coefficients are zero. "
                f"{TECHNIQUES.capitalize()} and {COMMON_FACTORS.replace('_', ' ')} are those named in the model"
                f"{_products(tree)}.",
                "variance",
                lambda: _shares(tree, ci_prob),
            )
        )
    if names.LOG_SIGMA in read.posterior(tree):
        found.append(
            Part(
                CONSISTENCY,
                "Consistency of therapists",
                "Residual SD of a therapist's sessions around what fixed effects, patient and therapist predict, in "
                f"outcome units, with its {percent} interval; ratio: to the typical therapist; p(below): probability "
                "that the sessions run more evenly than is typical. Small means close to the expected course, "
                "whatever that course is.",
                "therapists",
                lambda: _consistency(masked, ci_prob),
            )
        )
    return tuple(found)


def _products(tree: xr.DataTree) -> str:
    if not any(len(info.factors) > 1 for info in read.terms_of(tree)):
        return ""
    return f"; {INTERACTION}: technique x common factor; {MATCHING}: either of them x another variable"


def _shares(tree: xr.DataTree, ci_prob: float | None) -> pd.DataFrame:
    table = summarize_shares(ingredient_shares(tree), ci_prob=ci_prob).reset_index()
    return table.replace({"source": {each: str(each).replace("_", " ") for each in table["source"].unique()}})


def _consistency(masked: Masked, ci_prob: float | None) -> pd.DataFrame:
    hidden = set(masked.hidden.get("therapist", ()))
    table = consistency(masked.tree, ci_prob=ci_prob)
    return table.loc[[code for code in table.index if str(code) not in hidden]].sort_index().reset_index()

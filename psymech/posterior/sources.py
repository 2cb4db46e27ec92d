"""To which source a fixed effect belongs: techniques, common factors, their interaction, time, a unit."""

import json
from typing import Final

import numpy as np
import xarray as xr

from psymech import names
from psymech.names import TIME, Level
from psymech.posterior import tree as read
from psymech.posterior.attribution import varying
from psymech.posterior.tree import TermInfo

TECHNIQUES: Final = "techniques"
COMMON_FACTORS: Final = "common_factors"
INTERACTION: Final = "interaction"  # technique x common factor
MATCHING: Final = "matching"  # technique or common factor x what the patient or the therapist is like
BASELINE: Final = "baseline"  # the outcome's own score before
CARRY_OVER: Final = "carry_over"  # the outcome's own last value
COVARIATES: Final = "covariates"  # columns that vary over sessions and are no ingredient
RESIDUAL: Final = "residual"
SOURCES: Final = (
    TECHNIQUES,
    COMMON_FACTORS,
    INTERACTION,
    MATCHING,
    TIME,
    CARRY_OVER,
    BASELINE,
    COVARIATES,
    "patient",
    "therapist",
    "clinic",
    RESIDUAL,
)

_INGREDIENTS = {"technique": TECHNIQUES, "common_factor": COMMON_FACTORS}


def sources_of_terms(tree: xr.DataTree, response: str, levels: tuple[Level, ...]) -> dict[str, str]:
    """Return the source of each fixed effect of a response except its intercept, by label.

    A technique or common factor is its own source, and so are products within one kind or with time. A technique times
    a common factor is ``interaction``; either of them times another variable is ``matching``. A covariate belongs to
    the highest level within whose units it is constant; one that varies over sessions is ``covariates``.
    """
    several = len(read.responses_of(tree)) > 1
    terms = [t for t in read.terms_of(tree) if not several or t.response == response]
    rows = read.rows_of_response(tree, response)
    x = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM).values
    labels = read.labels_of(read.posterior(tree), names.TERM)
    units: dict[Level, np.ndarray] = {level: read.unit_of_obs(tree, level)[rows] for level in levels}
    roles = {t.column: _INGREDIENTS[t.role] for t in terms if t.role in _INGREDIENTS}
    noted = dict(read.json_attr(tree, names.ATTR_SPEC).get("roles", ()))
    found: dict[str, str] = {}
    for term in terms:
        if term.role == "intercept":
            continue
        values = x[rows, labels.index(term.label)].astype(float)
        found[term.label] = _source(term, roles, noted) or _home(values, units)
    return found


def _source(term: TermInfo, roles: dict[str, str], noted: dict[str, str]) -> str | None:
    """Return what role and factors say; None for a covariate, whose home the column itself tells."""
    if term.role in _INGREDIENTS:
        return _INGREDIENTS[term.role]
    if term.role == "time":
        return TIME
    if term.role == "autoregressive":
        return CARRY_OVER
    columns = {_column(factor) for factor in term.factors} or {term.column}
    if len(columns) == 1 and noted.get(next(iter(columns))) == BASELINE:
        return BASELINE
    kinds = {roles[column] for column in columns if column in roles}
    others = {column for column in columns if column not in roles and column != TIME}
    if not kinds:
        return TIME if columns == {TIME} else None
    if len(kinds) > 1:
        return INTERACTION
    return MATCHING if others else next(iter(kinds))


def _column(factor: str) -> str:
    try:
        entry = json.loads(factor)
    except json.JSONDecodeError:
        return factor
    return str(entry["column"]) if isinstance(entry, dict) else factor


def _home(values: np.ndarray, units: dict[Level, np.ndarray]) -> str:
    home = COVARIATES
    for level, unit in units.items():
        n = np.maximum(np.bincount(unit), 1)
        deviations = values - (np.bincount(unit, weights=values) / n)[unit]
        if not varying(deviations[:, None], values[:, None])[0]:
            home = level
    return home

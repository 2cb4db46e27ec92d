"""Random columns of a level: which unit each row belongs to, whose unit that is, and what varies over units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.data.membership import Members, session_shares
from psymech.data.sessions import SessionData
from psymech.names import INTERCEPT, LEVELS, Level
from psymech.spec.model import ModelSpec, RandomBlock, response_label, zero_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LevelDesign:
    """Random columns of one level: which unit each row belongs to, and what varies.

    Attributes
    ----------
    code : (n_obs,) index into `labels`.
    labels : (n_units,) ids as the user knows them.
    parent : (n_units,) index of each unit's parent at the next level of the design; None at the top or where crossed.
    Z : (n_obs, n_terms) columns.
    terms : labels of the columns.
    zero : (n_terms, n_terms) partial correlations, below the diagonal, that are fixed at zero; None where none is.
    members : units that share the rows, with weights; None where each row has one unit. `code` then is the unit with
        the largest weight.
    """

    level: Level
    code: Ints
    labels: NDArray
    parent: Ints | None
    Z: Floats
    terms: tuple[str, ...]
    correlated: bool
    centred: bool | None
    zero: NDArray[np.bool_] | None = None
    members: Members | None = None

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.labels)


def level_designs(
    spec: ModelSpec, data: SessionData, X: Floats, labels: tuple[str, ...], row: Ints, response: Ints
) -> tuple[LevelDesign, ...]:
    """Return the random columns of every level that the model uses, lowest level first.

    Parameters
    ----------
    X : (n_obs, n_terms) fixed-effect columns, named by `labels`.
    row, response : (n_obs,) session and response of each row.
    """
    by_label = dict(zip(labels, X.T, strict=True))
    many = len(spec.responses) > 1
    for index, each in enumerate(spec.responses):
        label = response_label(each.column, INTERCEPT) if many else INTERCEPT
        by_label.setdefault(label, (response == index).astype(float))
    terms_of: dict[Level, tuple[str, ...]] = {}
    for level in LEVELS:
        if level in data.levels and level not in spec.without:
            block = spec.block(level)
            wanted = spec.default_random(level) if block is None else block.terms
            terms_of[level] = tuple(t for t in wanted if t in by_label)
    chosen: list[Level] = [level for level, terms in terms_of.items() if terms]
    shared = _members(spec, data, chosen, row, response)
    used: dict[Level, Ints] = {
        level: np.unique(shared[level].code if level in shared else data.codes[level][row]) for level in chosen
    }
    out = []
    for position, level in enumerate(chosen):
        terms = terms_of[level]
        block = spec.block(level) or RandomBlock(level, terms)
        units = used[level]
        parent = None
        if data.patient_ids != "crossed" and position + 1 < len(chosen):
            upper = chosen[position + 1]
            parent = np.searchsorted(used[upper], _ancestor(data, level, upper)[units]).astype(np.int64)
        members = None
        if level in shared:
            places = np.searchsorted(units, shared[level].code).astype(np.int64)
            members = Members(places, shared[level].weight)
        own = data.codes[level][row] if members is None else units[members.code[:, 0]]
        out.append(
            LevelDesign(
                level=level,
                code=np.searchsorted(units, own).astype(np.int64),
                labels=data.ids[level][units],
                parent=parent,
                Z=np.column_stack([by_label[t] for t in terms]),
                terms=terms,
                correlated=block.correlated and len(terms) > 1,
                centred=block.centred,
                zero=zero_pairs(terms, spec.uncorrelated) if spec.uncorrelated else None,
                members=members,
            )
        )
    return tuple(out)


def _members(
    spec: ModelSpec, data: SessionData, levels: list[Level], row: Ints, response: Ints
) -> dict[Level, Members]:
    """Levels whose units share rows; none where every row has one unit."""
    if spec.membership == "current" or data.patient_ids != "crossed":
        return {}
    whole = np.array([each.level != "session" for each in spec.responses])[response]
    shared = np.ones(row.size, dtype=bool) if spec.membership == "to date" else whole
    found = {level: session_shares(data, level, row, shared=shared) for level in levels if level != "patient"}
    return {level: found[level] for level in levels if level in found and found[level].code.shape[1] > 1}


def _ancestor(data: SessionData, level: Level, upper: Level) -> Ints:
    """Index of each unit's ancestor at `upper`, read off the sessions."""
    found = np.zeros(len(data.ids[level]), dtype=np.int64)
    found[data.codes[level]] = data.codes[upper]
    return found

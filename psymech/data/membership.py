"""Multiple membership: the units of a level that share a row, with weights by sessions."""

from dataclasses import dataclass

import numpy as np

from psymech.data.sessions import SessionData
from psymech.names import Level

SUM_TOLERANCE = 1e-12  # rounding of a sum of a few fractions


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The units that share each row.

    Attributes
    ----------
    code : int64 ndarray, shape (n_rows, m), index of each unit, the one with the largest weight first.
    weight : float64 ndarray, shape (n_rows, m), not negative, one in sum over the units; zero where `code` is padding.
    """

    code: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        if self.code.shape != self.weight.shape or (self.weight < 0).any():
            raise AssertionError("weights of multiple membership must be one a unit, none negative")
        if np.abs(self.weight.sum(axis=1) - 1.0).max(initial=0.0) > SUM_TOLERANCE:
            raise AssertionError("weights of multiple membership must be one in sum")


def session_shares(data: SessionData, level: Level, row: np.ndarray, *, shared: np.ndarray) -> Members:
    r"""Return the units of each row with their share of the patient's sessions up to and including the row's.

    .. math:: w_{tik} = n_{ik}(t) / \sum_l n_{il}(t)

    with :math:`n_{ik}(t)` the sessions of patient i with unit k that are numbered at most as high as the row's. Every
    session of the table counts, whether or not an outcome was observed.

    Parameters
    ----------
    data : SessionData
    level : the level of the units, above the patients.
    row : int64 ndarray, shape (n_rows,), sessions of the data at which the rows stand.
    shared : bool ndarray, shape (n_rows,); a row that is not shared belongs to its session's unit alone.
    """
    unit, patient = data.codes[level], data.codes["patient"]
    order = np.lexsort((data.session, patient))
    starts = np.flatnonzero(np.diff(patient[order], prepend=-1))
    place = np.empty(order.size, dtype=np.int64)
    place[order] = np.arange(order.size)
    first = starts[patient]  # patients are coded 0, 1, ... and every one has a session
    units, which = _units_of_patients(unit[order], patient[order])
    code = np.zeros((row.size, units.shape[1]), dtype=np.int64)
    count = np.zeros(code.shape)
    for j in range(units.shape[1]):
        seen = np.concatenate([[0], np.cumsum(which == j)])
        code[:, j] = units[patient[row], j]
        count[:, j] = seen[place[row] + 1] - seen[first[row]]
    count[~shared] = code[~shared] == unit[row[~shared], None]
    count[code < 0] = 0.0
    weight = count / count.sum(axis=1, keepdims=True)
    best = np.argsort(-weight, axis=1, kind="stable")
    code, weight = np.take_along_axis(code, best, axis=1), np.take_along_axis(weight, best, axis=1)
    used = max(1, int((weight > 0).any(axis=0).sum()))
    code = np.where(weight > 0, code, code[:, :1])
    return Members(code[:, :used], weight[:, :used])


def _units_of_patients(unit: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units of each patient in order of their first session (n_patients, m), padded with -1, and each row's place."""
    pairs = patient * (int(unit.max()) + 1) + unit
    found, first, back = np.unique(pairs, return_index=True, return_inverse=True)
    by_first = np.argsort(first, kind="stable")
    owner = patient[first[by_first]]  # rows are sorted by patient, so pairs in order of first sessions are too
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    rank = np.arange(owner.size) - np.repeat(starts, np.diff(np.append(starts, owner.size)))
    table = np.full((int(patient.max()) + 1, int(rank.max()) + 1), -1, dtype=np.int64)
    table[owner, rank] = unit[first[by_first]]
    rank_of_pair = np.empty(found.size, dtype=np.int64)
    rank_of_pair[by_first] = rank
    return table, rank_of_pair[back]

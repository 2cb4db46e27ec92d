"""Residuals of several responses that correlate within an occasion, whichever of them were observed.

An occasion is a session (or a patient with scores after treatment). Occasions with the same responses observed share a
pattern; a missing response drops out of the covariance of its occasion, so that nothing else of the occasion is lost.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import DesignError, shown_ids
from psymech.gaussian.cross import FloatArray, IntArray, RowTerm
from psymech.gaussian.residual import ResidualValue


@dataclass(frozen=True, slots=True, eq=False)
class ByPattern:
    """One covariance ``Sigma = C C'`` across responses within an occasion; ``theta`` is the lower triangle of ``C``
    row by row.

    For each pattern of observed responses the coefficients are the entries of the inverse of its part of ``Sigma``,
    lower triangle row by row.

    Attributes
    ----------
    masks
        ``(n_patterns, R)``: which responses each pattern holds.
    rows
        For each pattern ``(n_occasions, r)``: the rows of its occasions, in the order of the responses.
    """

    masks: np.ndarray
    rows: tuple[IntArray, ...]
    n_rows: int

    @property
    def n_responses(self) -> int:
        """Number of responses."""
        return self.masks.shape[1]

    @property
    def n_theta(self) -> int:
        """Number of parameters."""
        return self.n_responses * (self.n_responses + 1) // 2

    @property
    def counts(self) -> FloatArray:
        """Number of occasions of each pattern."""
        return np.array([float(len(r)) for r in self.rows])

    def terms(self) -> tuple[RowTerm, ...]:
        """Return the constant matrices, in the order of the coefficients."""
        out = []
        for rows in self.rows:
            for i, j in zip(*np.tril_indices(rows.shape[1]), strict=True):
                if i == j:
                    weight = np.zeros(self.n_rows)
                    weight[rows[:, i]] = 1.0
                    out.append(RowTerm(weight=weight))
                else:
                    out.append(RowTerm(first=rows[:, i], second=rows[:, j], pair_weight=np.ones(len(rows))))
        return tuple(out)

    def coefficients(self, covariance: FloatArray) -> FloatArray:
        """Return the coefficients ``(..., n_coef)`` of covariances ``(..., R, R)``."""
        out = []
        for mask in self.masks:
            precision = np.linalg.inv(covariance[..., mask, :][..., :, mask])
            i, j = np.tril_indices(int(mask.sum()))
            out.append(precision[..., i, j])
        return np.concatenate(out, axis=-1)

    def factor(self, theta: ArrayLike) -> FloatArray:
        """Return the lower-triangular factor ``C``."""
        values = np.asarray(theta, dtype=np.float64)
        if values.shape != (self.n_theta,):
            raise DesignError(f"Expected {self.n_theta} residual parameters, found shape {values.shape}.")
        factor = np.zeros((self.n_responses, self.n_responses))
        factor[np.tril_indices(self.n_responses)] = values
        return factor

    def evaluate(self, theta: ArrayLike) -> ResidualValue:
        """Return the coefficients and ``log|R|``, with derivatives by the entries of ``C``."""
        factor = self.factor(theta)
        covariance = factor @ factor.T
        coefs, d_coefs = [], []
        log_det, d_log_det = 0.0, np.zeros(self.n_theta)
        steps = []
        for r, s in zip(*np.tril_indices(self.n_responses), strict=True):
            step = np.zeros_like(factor)
            step[r] = factor[:, s]
            steps.append(step + step.T)
        for mask, rows in zip(self.masks, self.rows, strict=True):
            part = np.ix_(mask, mask)
            lower = np.tril_indices(int(mask.sum()))
            precision = np.linalg.inv(covariance[part])
            coefs.append(precision[lower])
            d_coefs.append(np.column_stack([(-precision @ step[part] @ precision)[lower] for step in steps]))
            log_det += len(rows) * np.linalg.slogdet(covariance[part])[1]
            d_log_det += [len(rows) * np.sum(precision * step[part]) for step in steps]
        return ResidualValue(np.concatenate(coefs), float(log_det), np.vstack(d_coefs), d_log_det)

    def log_det_by_unit(self, theta: ArrayLike, unit_of_row: IntArray) -> FloatArray:
        """Return ``log|R_i|`` of each unit."""
        factor = self.factor(theta)
        covariance = factor @ factor.T
        out = np.zeros(int(unit_of_row.max()) + 1)
        for mask, rows in zip(self.masks, self.rows, strict=True):
            value = np.linalg.slogdet(covariance[np.ix_(mask, mask)])[1]
            out += value * np.bincount(unit_of_row[rows[:, 0]], minlength=len(out))
        return out


def by_pattern(occasion: ArrayLike, response: ArrayLike) -> ByPattern:
    """Return the structure of residuals that correlate across the responses of an occasion.

    Parameters
    ----------
    occasion
        ``(n,)``: number of each row's occasion.
    response
        ``(n,)``: number of each row's response, from 0 without gaps.

    Raises
    ------
    DesignError
        An occasion holds a response twice.

    Examples
    --------
    >>> by_pattern([0, 0, 1], [0, 1, 1]).coefficients(np.diag([4.0, 1.0]))
    array([0.25, 0.  , 1.  , 1.  ])
    """
    when, what = np.asarray(occasion, dtype=np.int64), np.asarray(response, dtype=np.int64)
    numbers, place = np.unique(when, return_inverse=True)
    n_responses = int(what.max()) + 1
    table = np.full((len(numbers), n_responses), -1, dtype=np.int64)
    table[place, what] = np.arange(len(when))
    if np.count_nonzero(table >= 0) < len(when):
        twice = np.flatnonzero(table[place, what] != np.arange(len(when)))
        raise DesignError(f"A response stands twice in one occasion: {shown_ids(when[twice].tolist())}.")
    masks, kind = np.unique(table >= 0, axis=0, return_inverse=True)
    order = np.argsort(-masks.sum(axis=1), kind="stable")
    rows = tuple(table[kind.ravel() == p][:, masks[p]] for p in order)
    return ByPattern(masks[order], rows, len(when))

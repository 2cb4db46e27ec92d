"""Residual structures whose precision is linear in constant matrices.

Each structure gives the constant matrices once (``terms``) and, for each value of its parameters, the coefficients
in front of them and the log determinant of the residual covariance (``evaluate``), both with derivatives.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import DesignError, shown_ids
from psymech.gaussian.cross import FloatArray, IntArray, RowTerm


@dataclass(frozen=True, slots=True, eq=False)
class ResidualValue:
    """Coefficients ``(n_coef,)``, ``log|R|`` of each unit summed, and their derivatives by the parameters."""

    coefs: FloatArray
    log_det: float
    d_coefs: FloatArray  # (n_coef, n_theta)
    d_log_det: FloatArray  # (n_theta,)


class Residual(Protocol):
    """What every residual structure offers; ``theta`` is a flat parameter vector whose meaning the structure
    documents.
    """

    @property
    def n_theta(self) -> int:
        """Number of parameters."""
        ...

    def terms(self) -> tuple[RowTerm, ...]:
        """Return the constant matrices, in the order of the coefficients."""
        ...

    def evaluate(self, theta: ArrayLike) -> ResidualValue:
        """Return coefficients and ``log|R|`` with derivatives."""
        ...

    def log_det_by_unit(self, theta: ArrayLike, unit_of_row: IntArray) -> FloatArray:
        """Return ``log|R_i|`` of each unit."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ByGroup:
    """One residual SD for each group of rows (a response, an arm): ``R = diag(sigma[group])^2``, ``theta = sigma``."""

    group: IntArray

    def __post_init__(self) -> None:
        if self.group.ndim != 1 or self.group.size == 0 or self.group.min() < 0 or np.any(np.bincount(self.group) == 0):
            raise DesignError("Groups of residuals must be numbered from 0 without gaps, one for each row.")

    @property
    def n_theta(self) -> int:
        """Number of parameters."""
        return int(self.group.max()) + 1

    def terms(self) -> tuple[RowTerm, ...]:
        """Return the constant matrices: the rows of each group."""
        return tuple(RowTerm(weight=(self.group == g).astype(np.float64)) for g in range(self.n_theta))

    def evaluate(self, theta: ArrayLike) -> ResidualValue:
        """Return coefficients ``1 / sigma^2`` and ``log|R|``, with derivatives."""
        sigma = _theta(theta, self.n_theta)
        counts = np.bincount(self.group)
        return ResidualValue(sigma**-2, float(2 * counts @ np.log(sigma)), np.diag(-2 * sigma**-3), 2 * counts / sigma)

    def log_det_by_unit(self, theta: ArrayLike, unit_of_row: IntArray) -> FloatArray:
        """Return ``log|R_i|`` of each unit."""
        sigma = _theta(theta, self.n_theta)
        return np.bincount(unit_of_row, weights=2 * np.log(sigma)[self.group])


def iid(n: int) -> ByGroup:
    """Return the structure with one residual SD for all ``n`` rows."""
    return ByGroup(np.zeros(n, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Unstructured:
    """Free covariance across the responses of one occasion; every occasion has every response once.

    ``R`` is block diagonal with blocks ``C C'``; ``theta`` is the lower triangle of ``C`` row by row. Coefficients
    are the entries of ``(C C')^{-1}``, lower triangle row by row.

    Attributes
    ----------
    rows
        ``(n_occasions, n_responses)``: the row of each response at each occasion.
    """

    rows: IntArray

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not np.array_equal(np.sort(self.rows, axis=None), np.arange(self.rows.size)):
            raise DesignError(
                "Each row must be one response of one occasion, every occasion complete. Drop occasions with a "
                "missing response."
            )

    @property
    def n_theta(self) -> int:
        """Number of parameters."""
        r = self.rows.shape[1]
        return r * (r + 1) // 2

    def terms(self) -> tuple[RowTerm, ...]:
        """Return the constant matrices: rows of each response, and pairs of rows of two responses."""
        out = []
        for r, s in zip(*np.tril_indices(self.rows.shape[1]), strict=True):
            if r == s:
                weight = np.zeros(self.rows.size)
                weight[self.rows[:, r]] = 1.0
                out.append(RowTerm(weight=weight))
            else:
                out.append(
                    RowTerm(first=self.rows[:, r], second=self.rows[:, s], pair_weight=np.ones(self.rows.shape[0]))
                )
        return tuple(out)

    def factor(self, theta: ArrayLike) -> FloatArray:
        """Return the lower-triangular factor ``C`` of the covariance of one occasion."""
        size = self.rows.shape[1]
        factor = np.zeros((size, size))
        factor[np.tril_indices(size)] = _theta(theta, self.n_theta, positive=False)
        return factor

    def evaluate(self, theta: ArrayLike) -> ResidualValue:
        """Return the entries of the precision and ``log|R|``, with derivatives by the factor's entries."""
        factor = self.factor(theta)
        lower = np.tril_indices(factor.shape[0])
        inverse = np.linalg.inv(factor)
        precision = inverse.T @ inverse
        n = self.rows.shape[0]
        d_coefs, d_log_det = np.empty((self.n_theta, self.n_theta)), np.zeros(self.n_theta)
        for index, (r, s) in enumerate(zip(*lower, strict=True)):
            step = np.zeros_like(factor)
            step[r] = factor[:, s]
            d_coefs[:, index] = (-precision @ (step + step.T) @ precision)[lower]
            d_log_det[index] = 2 * n / factor[r, r] if r == s else 0.0
        return ResidualValue(precision[lower], float(2 * n * np.log(np.abs(np.diag(factor))).sum()), d_coefs, d_log_det)

    def log_det_by_unit(self, theta: ArrayLike, unit_of_row: IntArray) -> FloatArray:
        """Return ``log|R_i|`` of each unit."""
        of_occasion = 2 * np.log(np.abs(np.diag(self.factor(theta)))).sum()
        return np.bincount(unit_of_row[self.rows[:, 0]], minlength=int(unit_of_row.max()) + 1) * of_occasion


@dataclass(frozen=True, slots=True, eq=False)
class AR1:
    """First-order autoregression with gaps: ``cov(e_s, e_t) = sigma_g^2 phi_g^|t - s|`` within a series.

    ``theta = (sigma_1, ..., sigma_G, phi_1, ..., phi_G)`` for ``G`` groups of series (one, unless ``group`` is
    given). For each group the coefficients are ``1 / s2`` and then, for each distinct gap ``d``, ``1 / (s2 (1 -
    phi^2d))`` and ``-phi^d / (s2 (1 - phi^2d))``.

    Attributes
    ----------
    position
        ``(n,)``: time of each row. Gaps need not be whole numbers; then ``phi`` must be positive.
    series
        ``(n,)``: rows with the same number form one series (a patient's scores on one response).
    group
        ``(n,)`` group of each row, constant within a series.
    """

    position: FloatArray
    series: IntArray
    group: IntArray

    def __post_init__(self) -> None:
        if not self.position.shape == self.series.shape == self.group.shape or self.position.ndim != 1:
            raise DesignError("Expected one position, series and group for each row.")
        order = np.lexsort((self.position, self.series))
        same = np.diff(self.series[order]) == 0
        repeated = np.flatnonzero(same & (np.diff(self.position[order]) <= 0))
        if repeated.size:
            raise DesignError(
                f"Two rows of one series share a position; series {shown_ids(self.series[order][repeated].tolist())}."
            )
        if np.any(same & (np.diff(self.group[order]) != 0)):
            raise DesignError("All rows of a series must belong to one group of residuals.")

    @property
    def n_groups(self) -> int:
        """Number of groups of series."""
        return int(self.group.max()) + 1

    @property
    def n_theta(self) -> int:
        """Number of parameters."""
        return 2 * self.n_groups

    def steps(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Return the start row, end row and length of every step from one row of a series to the next."""
        order = np.lexsort((self.position, self.series))
        inside = np.flatnonzero(np.diff(self.series[order]) == 0)
        start, end = order[inside], order[inside + 1]
        return start, end, self.position[end] - self.position[start]

    def gaps(self) -> tuple[FloatArray, ...]:
        """Return the distinct gaps of each group, ascending."""
        start, _, gap = self.steps()
        return tuple(np.unique(gap[self.group[start] == g]) for g in range(self.n_groups))

    def terms(self) -> tuple[RowTerm, ...]:
        """Return the constant matrices, in the order of the coefficients."""
        start, end, gap = self.steps()
        n = self.position.shape[0]
        out = []
        for g, gaps in enumerate(self.gaps()):
            mine = self.group[start] == g
            rows = (self.group == g).astype(np.float64)
            rows -= np.bincount(end[mine], minlength=n)  # rows that do not follow another: the first of a series
            out.append(RowTerm(weight=rows - np.bincount(start[mine], minlength=n)))
            for d in gaps:
                s, e = start[mine & (gap == d)], end[mine & (gap == d)]
                out.append(
                    RowTerm(weight=(np.bincount(s, minlength=n) + np.bincount(e, minlength=n)).astype(np.float64))
                )
                out.append(RowTerm(first=s, second=e, pair_weight=np.ones(s.size)))
        return tuple(out)

    def evaluate(self, theta: ArrayLike) -> ResidualValue:
        """Return the coefficients and ``log|R|``, with derivatives."""
        sigma, phi = self._parameters(theta)
        start, _, gap = self.steps()
        coefs: list[float] = []
        d_rows: list[FloatArray] = []
        log_det, d_log_det = 0.0, np.zeros(self.n_theta)
        for g, gaps in enumerate(self.gaps()):
            s2, count = sigma[g] ** 2, int((self.group == g).sum())
            d_sigma, d_phi = np.eye(self.n_theta)[g], np.eye(self.n_theta)[self.n_groups + g]
            coefs.append(1 / s2)
            d_rows.append(-2 / (s2 * sigma[g]) * d_sigma)
            log_det += count * np.log(s2)
            d_log_det += 2 * count / sigma[g] * d_sigma
            for d in gaps:
                steps = int(((gap == d) & (self.group[start] == g)).sum())
                rho, d_rho = phi[g] ** d, d * phi[g] ** (d - 1)
                rest = 1 - rho**2
                coefs += [1 / (s2 * rest), -rho / (s2 * rest)]
                d_rows.append(-2 / (s2 * rest * sigma[g]) * d_sigma + 2 * rho * d_rho / (s2 * rest**2) * d_phi)
                d_rows.append(
                    2 * rho / (s2 * rest * sigma[g]) * d_sigma - (1 + rho**2) * d_rho / (s2 * rest**2) * d_phi
                )
                log_det += steps * np.log(rest)
                d_log_det += -2 * steps * rho * d_rho / rest * d_phi
        return ResidualValue(np.array(coefs), float(log_det), np.array(d_rows), d_log_det)

    def log_det_by_unit(self, theta: ArrayLike, unit_of_row: IntArray) -> FloatArray:
        """Return ``log|R_i|`` of each unit."""
        sigma, phi = self._parameters(theta)
        start, end, gap = self.steps()
        by_row = 2 * np.log(sigma)[self.group]
        by_row[end] += np.log1p(-(phi[self.group[start]] ** (2 * gap)))
        return np.bincount(unit_of_row, weights=by_row)

    def _parameters(self, theta: ArrayLike) -> tuple[FloatArray, FloatArray]:
        both = _theta(theta, self.n_theta, positive=False)
        sigma, phi = both[: self.n_groups], both[self.n_groups :]
        _theta(sigma, self.n_groups)
        if np.any(np.abs(phi) >= 1):
            raise DesignError(f"Autocorrelation must lie between -1 and 1, found {shown_ids(phi.tolist())}.")
        gap = self.steps()[2]
        if np.any(phi <= 0) and np.any(gap != np.round(gap)):
            raise DesignError("Autocorrelation must be positive where gaps are not whole numbers.")
        return sigma, phi


def ar1(position: ArrayLike, series: ArrayLike, *, group: ArrayLike | None = None) -> AR1:
    """Return a first-order autoregression over the rows of each series.

    Examples
    --------
    >>> structure = ar1([1, 2, 4], [0, 0, 0])
    >>> structure.evaluate([1.0, 0.5]).coefs.round(3)
    array([ 1.   ,  1.333, -0.667,  1.067, -0.267])
    """
    rows = np.asarray(series, dtype=np.int64)
    groups = np.zeros_like(rows) if group is None else np.asarray(group, dtype=np.int64)
    return AR1(np.asarray(position, dtype=np.float64), rows, groups)


def _theta(theta: ArrayLike, size: int, *, positive: bool = True) -> FloatArray:
    values = np.asarray(theta, dtype=np.float64)
    if values.shape != (size,):
        raise DesignError(f"Expected {size} residual parameters, found shape {values.shape}.")
    if positive and np.any(values <= 0):
        raise DesignError(f"Residual SDs must be positive, found {shown_ids(values.tolist())}.")
    return values

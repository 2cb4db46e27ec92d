"""Columns of the design: parts of variables, lags, and basis functions of time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.data.decompose import split
from psymech.data.lags import lag, lag_reasons
from psymech.data.sessions import SessionData
from psymech.names import TIME, Level
from psymech.spec.model import Factor, ModelSpec
from psymech.timebasis import TimeBasis, evaluate, make_time_basis

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """The table, the concrete time basis, and the unit means by which variables were split."""

    data: SessionData
    time_basis: TimeBasis | None
    unit_means: Mapping[Level, Mapping[str, Floats]]

    def raw_at(self, factor: Factor) -> Floats:
        """Return the factor's variable before it is split, lagged as the factor says."""
        values = self.data.values(factor.column)
        return lag(values, self.data, factor.lag) if factor.lag else values

    def has_predecessor(self, factor: Factor, outcome: str) -> NDArray[np.bool_]:
        """Whether the session `factor.lag` sessions earlier exists, and, for the outcome's own lag, is observed."""
        values = self.data.values(outcome) if factor.column == outcome else np.ones(self.data.n_sessions)
        return np.isfinite(lag(values, self.data, factor.lag))

    def lag_reasons(self, factors: Iterable[Factor], lost: NDArray[np.bool_]) -> dict[str, int]:
        """Count the rows in `lost` by why they have no predecessor."""
        longest = max((f.lag for f in factors), default=0)
        return lag_reasons(self.data, longest, lost)


def column_source(spec: ModelSpec, data: SessionData) -> ColumnSource:
    """Fix what the columns need from the data: the time basis and the means of the split variables."""
    basis = None if spec.time is None else make_time_basis(spec.time, data.time)
    means: dict[Level, dict[str, Floats]] = {}
    for factor in (f for r in spec.responses for t in r.terms for f in t.factors):
        if factor.part == "raw":
            continue
        for level in ("patient", "therapist"):
            if level in data.levels:
                parts = split(data.values(factor.column), data)
                means.setdefault(level, {})[factor.column] = parts.means[level]
    return ColumnSource(data, basis, means)


def evaluate_factor(source: ColumnSource, factor: Factor) -> Floats:
    """Return the factor's column over all sessions of the data; NaN where it does not exist."""
    data = source.data
    if factor.basis is not None and factor.column == TIME:
        if source.time_basis is None:
            raise AssertionError("a time factor needs a time basis")
        return evaluate(source.time_basis, data.time)[:, factor.basis]
    values = data.values(factor.column)
    if factor.part != "raw":
        values = split(values, data).parts[factor.part]
    return lag(values, data, factor.lag) if factor.lag else values

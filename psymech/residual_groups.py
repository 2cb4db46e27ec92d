"""Residual SDs that differ between groups of rows: an arm, a period of treatment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.data.sessions import SessionData, varies_within
from psymech.errors import DataError, DesignError, shown_ids
from psymech.spec.model import THERAPIST, ModelSpec

MAX_GROUPS = 20  # more distinct values are a measurement, not a grouping


@dataclass(frozen=True, slots=True, eq=False)
class ResidualGroups:
    """Which group each row's residual belongs to.

    Attributes
    ----------
    column : the column whose values make the groups.
    code : (n_obs,) index into `labels`.
    labels : values of the column as text, ascending.
    """

    column: str
    code: NDArray[np.int64]
    labels: tuple[str, ...]


def group_labels(values: NDArray[np.float64]) -> tuple[str, ...]:
    """Return values of the column as text, with all digits that tell them apart: ``1``, ``0.5``, ``20190101``."""
    return tuple(f"{value:.15g}" for value in values)


def residual_groups(spec: ModelSpec, data: SessionData, row: NDArray[np.int64]) -> ResidualGroups | None:
    """Return the groups of the rows, None where all rows share a residual SD or each therapist has one.

    Raises
    ------
    DataError
        A row has no value.
    DesignError
        The rows have one value only, or more than 20.
    """
    if spec.residual_by is None or spec.residual_by == THERAPIST:
        return None
    column = spec.residual_by
    values = data.values(column)[row]
    missing = np.isnan(values)
    if missing.any():
        ids = data.ids["patient"][np.unique(data.codes["patient"][row[missing]])]
        raise DataError(
            f"residual_by={column!r} needs a value in every row with an outcome, found {int(missing.sum())} missing "
            f"(patients {shown_ids(ids)}). Fill them in, or leave those sessions out yourself."
        )
    found, code = np.unique(values, return_inverse=True)
    if not 2 <= found.size <= MAX_GROUPS:
        raise DesignError(
            f"residual_by={column!r} needs 2 to {MAX_GROUPS} different values, found {found.size} such as "
            f"{shown_ids([f'{v:g}' for v in found[:5]])}. Name a column of groups, such as an arm or a period."
        )
    return ResidualGroups(column, code.astype(np.int64), group_labels(found))


def refuse_other_values(spec: ModelSpec, data: SessionData) -> None:
    """Raise DesignError where the column that says who has a therapist holds anything but 0 and 1, or changes within
    patients whose therapists share rows.
    """
    if spec.therapist_in is None:
        return
    if "therapist" not in data.levels:
        raise DesignError(
            f"therapist_in={spec.therapist_in!r} needs therapists, but the data name none. Give the column with "
            "SessionData.from_frame(..., therapist=...)."
        )
    values = data.values(spec.therapist_in)
    other = np.setdiff1d(values[np.isfinite(values)], [0.0, 1.0])
    if other.size:
        raise DesignError(
            f"therapist_in={spec.therapist_in!r} needs 1 where a patient has a therapist and 0 elsewhere, found "
            f"{shown_ids([f'{v:g}' for v in other])}. Code the column as 0 and 1."
        )
    changing = varies_within(values, data.codes["patient"], len(data.ids["patient"]))
    if spec.membership != "current" and changing.size:
        raise DesignError(
            f"therapist_in={spec.therapist_in!r} together with membership={spec.membership!r} needs one arm a patient, "
            f"as sessions without a therapist are no therapist's share; found both for {changing.size} patient(s): "
            f"{shown_ids(data.ids['patient'][changing])}. Use membership='current', or leave these patients' sessions "
            "without a therapist out."
        )

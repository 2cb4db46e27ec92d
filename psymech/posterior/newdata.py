"""New sessions as rows of a fitted model: their columns are rebuilt from the tree alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.data.decompose import unit_means
from psymech.data.ids import as_key
from psymech.data.lags import lag, source_rows
from psymech.data.membership import Members, session_shares
from psymech.data.readers import read_table
from psymech.data.sessions import SessionData
from psymech.errors import DataError, DesignError, SpecError, shown_ids
from psymech.names import INTERCEPT, LEVELS, TIME, Level
from psymech.posterior import tree as read
from psymech.spec.model import THERAPIST, response_label
from psymech.timebasis import TimeBasis, evaluate

UNSEEN: Final = -1
NOBODY: Final = "(not named)"


@dataclass(frozen=True, slots=True)
class NewUnits:
    """The units of one level in new data.

    Attributes
    ----------
    own : int64 (n_rows,), index into `labels`, the new data's own units.
    labels : ids as the new data spell them; one entry where the new data do not name the level.
    index : int64 (n_labels,), index of each of them in the tree, -1 where the fit has no such unit.
    members : units that share each row, `code` an index into `labels`; None where each row has one.
    """

    own: np.ndarray
    labels: tuple[str, ...]
    index: np.ndarray
    members: Members | None = None

    @property
    def known(self) -> np.ndarray:
        """Index in the tree of each row's own unit, (n_rows,), -1 where the fit has no such unit."""
        return self.index[self.own]

    def take(self, rows: np.ndarray) -> "NewUnits":
        """Return the units of some rows."""
        members = None if self.members is None else Members(self.members.code[rows], self.members.weight[rows])
        return replace(self, own=self.own[rows], members=members)

    def unseen(self) -> tuple[str, ...]:
        """Ids that the fit does not have."""
        return tuple(self.labels[i] for i in np.unique(self.own[self.known == UNSEEN]))


@dataclass(frozen=True, slots=True)
class NewRows:
    """Design rows of one response for new sessions, in the order of the new data.

    Attributes
    ----------
    row : int64 (n_rows,), row of the given table, from 0.
    X : float64 (n_rows, n_terms), columns of the terms in `terms`, which are those of one response.
    Z : mapping of level to float64 (n_rows, n_random), in the order of the level's random terms in the tree.
    units : mapping of level to the units.
    session, time : float64 (n_rows,).
    notes : what was left out.
    groups : float64 (n_rows,), values of the column by which residual SDs differ; None where there is none.
    """

    row: np.ndarray
    X: np.ndarray
    terms: tuple[str, ...]
    Z: Mapping[Level, np.ndarray]
    units: Mapping[Level, NewUnits]
    session: np.ndarray
    time: np.ndarray
    notes: tuple[str, ...]
    groups: np.ndarray | None = None


def new_rows(tree: xr.DataTree, newdata: object, *, response: str, weighed: bool = True) -> NewRows:
    """Return the design rows of new sessions.

    Parameters
    ----------
    tree : DataTree
    newdata : path, table or SessionData
        Columns as in the fit; the outcome is needed only where its own last value predicts it. Where therapists share
        rows, all sessions of a patient so far.
    response : str
    weighed : bool
        Whether the weights of therapists that share rows are asked for.

    Raises
    ------
    SpecError
        The fit's linear predictor holds parameters beyond the columns.
    DataError
        A predictor is absent, not numeric or missing.
    DesignError
        No row is left that has the earlier session that a lag needs.
    """
    read.refuse_hidden_columns(tree)
    data = newdata if isinstance(newdata, SessionData) else read_sessions(tree, newdata)
    named: dict[Level, NewUnits] = {level: _units(tree, data, level) for level in _levels_named(tree)}
    units = _parents(tree, data, named)
    shared = _shared_levels(tree, response)
    averaged = bool(shared) and read.level_of_response(tree, response) != "session"
    if shared and (weighed or averaged):
        _refuse_gaps(tree, data, units["patient"])
    if weighed:
        for level in shared:
            units[level] = _with_members(data, level, units[level])
    entries = read.response_terms(tree, response)
    kept, notes = _kept(data, entries, response)
    columns = _Columns(tree, data, units, time_basis(tree), averaged)
    values = {str(e["label"]): columns.term(e["factors"]) for e in entries}
    _refuse_missing(values, entries, columns, kept)
    order = kept[np.argsort(data.source_row[kept], kind="stable")]
    X = np.column_stack([values[label][order] for label in values]) if values else np.zeros((order.size, 0))
    return NewRows(
        row=data.source_row[order],
        X=X,
        terms=tuple(values),
        Z={level: _z(tree, level, values, response, order) for level in read.levels_of(tree)},
        units={level: found.take(order) for level, found in units.items()},
        session=data.session[order],
        time=data.time[order],
        notes=notes,
        groups=_groups(tree, data, order),
    )


def _shared_levels(tree: xr.DataTree, response: str) -> tuple[Level, ...]:
    """Levels whose units share rows of a response."""
    membership = read.json_attr(tree, names.ATTR_SPEC).get("membership", "current")
    crossed = read.json_attr(tree, names.ATTR_DESIGN).get("patient_ids") == "crossed"
    held = membership == "multiple" and read.level_of_response(tree, response) == "session"
    if membership == "current" or not crossed or held:
        return ()
    return tuple(level for level in read.levels_of(tree) if level != "patient")


def _with_members(data: SessionData, level: Level, units: NewUnits) -> NewUnits:
    """Units that share each row, by the patient's sessions in the new data up to and including the row's."""
    if level not in data.levels:
        return units
    every = np.arange(data.n_sessions)
    return replace(units, members=session_shares(data, level, every, shared=np.ones(every.size, dtype=bool)))


def _refuse_gaps(tree: xr.DataTree, data: SessionData, patients: NewUnits) -> None:
    """Raise DataError where sessions of the fit, up to a patient's last new one, are not among the new rows."""
    if not (patients.index != UNSEEN).any():
        return
    constants = read.constants(tree)
    if names.group_of_obs("patient") not in constants:
        return
    owner, at = read.unit_of_obs(tree, "patient"), constants[names.SESSION_OF_OBS].values
    lacking = []
    for own in np.flatnonzero(patients.index != UNSEEN):
        new = data.session[patients.own == own]
        fitted = at[owner == patients.index[own]]
        if not np.isin(fitted[fitted <= new.max()], new).all():
            lacking.append(patients.labels[own])
    if lacking:
        raise DataError(
            "Therapists share the rows of patients by sessions so far (membership=): expected all sessions of a "
            f"patient in the new data, but some of the fit's are absent for {len(lacking)} patient(s): "
            f"{shown_ids(lacking)}. "
            "Give the earlier sessions as rows too; their outcome may be missing."
        )


def _groups(tree: xr.DataTree, data: SessionData, rows: np.ndarray) -> np.ndarray | None:
    column = read.json_attr(tree, names.ATTR_SPEC).get("residual_by")
    known = [*data.sessions.columns, *(name for table in data.units.values() for name in table.columns)]
    return None if column in (None, THERAPIST) or column not in known else data.values(column)[rows]


def read_sessions(tree: xr.DataTree, newdata: object) -> SessionData:
    """Return new data as checked sessions, the columns playing the roles that they had in the fit.

    A level's id column may be absent: therapists and clinics are then those of the patients, where the fit knows them;
    without patients all rows are one new patient's.
    """
    design = read.json_attr(tree, names.ATTR_DESIGN)
    roles = {"patient": "patient", "therapist": "therapist", "clinic": None, "session": "session", "time": None}
    roles |= design.get("roles") or {}
    table = read_table(newdata)
    frame, ids = newdata, design.get("patient_ids", "unique")
    present = {name: column if column in table.columns else None for name, column in roles.items()}
    if roles["patient"] not in table.columns:
        ids = "nested" if present["therapist"] else "unique"
        cells = {name: pd.Series(column.cells).mask(column.missing) for name, column in table.columns.items()}
        frame = pd.DataFrame(cells | {str(roles["patient"]): NOBODY}, index=pd.RangeIndex(table.n_rows))
    return SessionData.from_frame(
        frame,
        patient=str(roles["patient"]),
        therapist=present["therapist"],
        clinic=present["clinic"],
        session=str(roles["session"]),
        time=roles["time"],
        patient_ids=ids,
    )


def _levels_named(tree: xr.DataTree) -> tuple[Level, ...]:
    """Levels that the model or the data of the fit have, lowest first; sessions always belong to patients."""
    roles = read.json_attr(tree, names.ATTR_DESIGN).get("roles") or {}
    named = {"patient", *read.levels_of(tree), *(level for level in LEVELS if roles.get(level))}
    return tuple(level for level in LEVELS if level in named)


def _fit_labels(tree: xr.DataTree, level: Level) -> list[str]:
    draws = read.posterior(tree)
    if level in draws.coords:
        return [as_key(label) for label in draws[level].values.tolist()]
    mean = names.mean_of_unit(level)
    if names.CONSTANT_DATA in tree.children and mean in read.constants(tree):
        return [as_key(label) for label in read.constants(tree)[level].values.tolist()]
    return []


def _units(tree: xr.DataTree, data: SessionData, level: Level) -> NewUnits:
    place = {label: index for index, label in enumerate(_fit_labels(tree, level))}
    if level not in data.levels:
        return NewUnits(np.zeros(data.n_sessions, dtype=np.int64), (NOBODY,), np.array([UNSEEN]))
    labels = [as_key(label) for label in data.ids[level].tolist()]
    index = np.array([place.get(label, UNSEEN) for label in labels], dtype=np.int64)
    return NewUnits(data.codes[level], tuple(labels), index)


def _parents(tree: xr.DataTree, data: SessionData, units: Mapping[Level, NewUnits]) -> dict[Level, NewUnits]:
    """Fill in the therapists and clinics that the new data do not name but the fit knows."""
    found = dict(units)
    if names.CONSTANT_DATA not in tree.children or read.saved_without_rows(tree):
        return found
    constants = read.constants(tree)
    order: list[Level] = list(found)
    for lower, upper in pairwise(order):
        variable = names.parent_of_unit(lower, upper)
        if upper in data.levels or variable not in constants:
            continue
        parent = constants[variable].values.astype(np.int64)
        known = np.where(found[lower].known == UNSEEN, UNSEEN, parent[np.maximum(found[lower].known, 0)])
        labels = _fit_labels(tree, upper)
        distinct, own = np.unique(known, return_inverse=True)
        shown = tuple(NOBODY if index == UNSEEN else labels[index] for index in distinct)
        found[upper] = NewUnits(own.astype(np.int64), shown, distinct)
    return found


def _kept(data: SessionData, entries: Sequence[dict[str, Any]], response: str) -> tuple[np.ndarray, tuple[str, ...]]:
    keep = np.ones(data.n_sessions, dtype=bool)
    for factor in (f for entry in entries for f in entry["factors"] if f["lag"]):
        source = source_rows(data, factor["lag"])
        keep &= source >= 0
        if factor["column"] == response:
            keep &= np.isfinite(lag(data.values(response), data, factor["lag"]))
    if not keep.any():
        raise DesignError(
            "No row of the new data has the earlier session that the model's lags need. "
            "Give the patients' earlier sessions as rows too."
        )
    lost = int((~keep).sum())
    text = f"{lost} of {keep.size} rows have no predecessor to lag from and were left out."
    return np.flatnonzero(keep), (text,) if lost else ()


def time_basis(tree: xr.DataTree) -> TimeBasis | None:
    """Return the time basis of the fit, None in a model without time."""
    stored = read.json_attr(tree, names.ATTR_DESIGN).get("time_basis")
    return TimeBasis(stored["kind"], float(stored["origin"]), tuple(stored["knots"])) if stored else None


@dataclass(frozen=True, slots=True)
class _Columns:
    """Values of factors and terms over all sessions of the new data; `averaged` over the patient's sessions so far."""

    tree: xr.DataTree
    data: SessionData
    units: Mapping[Level, NewUnits]
    basis: TimeBasis | None
    averaged: bool = False

    def raw(self, factor: Mapping[str, Any]) -> np.ndarray:
        values = self.data.values(factor["column"])
        return lag(values, self.data, factor["lag"]) if factor["lag"] else values

    def factor(self, factor: Mapping[str, Any]) -> np.ndarray:
        if factor["column"] == TIME and factor["basis"] is not None:
            if self.basis is None:
                raise DataError("expected the time basis among the tree's attributes, found none. Fit again.")
            return evaluate(self.basis, self.data.time)[:, factor["basis"]]
        values = self.data.values(factor["column"])
        match factor["part"]:
            case "within":
                values = values - self.mean("patient", factor["column"])
            case "patient":
                values = self.mean("patient", factor["column"])
                if self._has("therapist"):
                    values = values - self.mean("therapist", factor["column"])
            case "therapist":
                values = self.mean("therapist", factor["column"])
        return lag(values, self.data, factor["lag"]) if factor["lag"] else values

    def term(self, factors: Sequence[Mapping[str, Any]]) -> np.ndarray:
        values = [self.factor(f) for f in factors]
        if self.averaged:
            values = [_mean_to_date(each, self.data) for each in values]
        return np.prod(values or [np.ones(self.data.n_sessions)], axis=0)

    def _has(self, level: Level) -> bool:
        return names.mean_of_unit(level) in read.constants(self.tree)

    def mean(self, level: Level, column: str) -> np.ndarray:
        """Mean of each row's unit: of the fit's sessions for units of the fit, else of the unit's rows here.

        Where the new data do not name the level, the average of the fit's units. Patients without a therapist
        (therapist_in=) have the mean of the fit's, whatever their placeholder.
        """
        variable = names.mean_of_unit(level)
        if not self._has(level):
            raise DataError(
                f"expected {variable!r} in constant_data, found none: the fit does not hold the means of {column!r} by "
                f"{level}, which split it. Fit again with this version."
            )
        fitted = read.take(read.constants(self.tree)[variable], names.COLUMN, column).values.astype(float)
        found = self.units[level]
        values = self.data.values(column)
        own = unit_means(values, found.own, len(found.labels))[found.own]
        partly = read.partially_nested(self.tree, level)
        kept = read.units_with_rows(self.tree, level) if partly else np.arange(fitted.size)
        if level not in self.data.levels or found.labels == (NOBODY,):
            own = np.full(values.size, np.nanmean(fitted[kept])) if level != "patient" else own
        if partly and kept.size < fitted.size:
            treated = self.data.values(read.json_attr(self.tree, names.ATTR_SPEC)["therapist_in"]) != 0
            own = np.where(treated, own, np.nanmean(np.delete(fitted, kept)))
        return np.where(found.known == UNSEEN, own, fitted[np.maximum(found.known, 0)])


def _mean_to_date(values: np.ndarray, data: SessionData) -> np.ndarray:
    """Mean over the patient's sessions up to and including each."""
    order = np.lexsort((data.session, data.codes["patient"]))
    by_session = pd.Series(values[order]).groupby(data.codes["patient"][order])
    out = np.empty(values.size)
    out[order] = by_session.cumsum(skipna=False) / (by_session.cumcount() + 1)
    return out


def _refuse_missing(
    values: Mapping[str, np.ndarray], entries: Sequence[dict[str, Any]], columns: _Columns, kept: np.ndarray
) -> None:
    counts: dict[str, int] = {}
    who: dict[str, list[str]] = {}
    patients = columns.units["patient"]
    for entry in entries:
        for factor in entry["factors"]:
            column = factor["column"]
            if (column == TIME and factor["basis"] is not None) or column in counts:
                continue
            missing = kept[np.isnan(columns.raw(factor)[kept])]
            if missing.size:
                counts[column] = missing.size
                who[column] = [patients.labels[i] for i in np.unique(patients.own[missing])]
    if counts:
        each = "; ".join(
            f"{column!r}: {count} of {kept.size} missing (patients {shown_ids(who[column])})"
            for column, count in counts.items()
        )
        raise DataError(
            f"Predictors must be complete in new data, found {each}. Fill them in, or leave those rows out."
        )
    hollow = [label for label, column in values.items() if not np.isfinite(column[kept]).all()]
    if hollow:
        raise DataError(
            f"No value can be computed for {shown_ids(hollow)} in {len(kept)} rows of the new data: a mean by patient "
            "or therapist is undefined."
        )


def _z(
    tree: xr.DataTree, level: Level, values: Mapping[str, np.ndarray], response: str, rows: np.ndarray
) -> np.ndarray:
    several = [each for each in read.responses_of(tree) if each != response]
    columns = []
    for label in read.labels_of(read.posterior(tree), names.term_dim(level)):
        if label in values:
            columns.append(values[label][rows])
        elif label in (INTERCEPT, response_label(response, INTERCEPT)):
            columns.append(np.ones(rows.size))
        elif any(label.startswith(response_label(other, "")) for other in several):
            columns.append(np.zeros(rows.size))
        else:
            raise SpecError(f"the random term {label!r} of level {level!r} is no column of this model.")
    return np.column_stack(columns)

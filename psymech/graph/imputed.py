"""Missing mediators as parameters: the explicit graph in which columns of the design hold unknown values."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.graph.explicit import coordinates, fixed_effects, level_effects, positive_sigma
from psymech.graph.variables import matmul
from psymech.imputation import FilledColumn, Imputation, MissingValues
from psymech.names import Level, Part
from psymech.priors import ChosenPriors

Parts = Mapping[Part, TensorVariable]


def imputed_model(design: Design, priors: ChosenPriors) -> pm.Model:
    r"""Return the explicit model of a design with missing mediators.

    A missing value of mediator m in session t is :math:`\eta^m_t + \sigma_m z_t` with z standard normal: its own
    equation is its prior. Means of patients and therapists, deviations from them and lags are functions of the
    completed column, so that the density is that of the completed table.
    """
    plan = design.imputation
    assert plan is not None
    with pm.Model(coords={**coordinates(design), names.MISSING: np.arange(plan.n)}) as model:
        beta = fixed_effects(design, priors)
        effects = {level.level: level_effects(level, priors, design) for level in design.levels}
        sigma = positive_sigma(design, priors)
        per_response = sigma if len(design.responses) > 1 else pt.atleast_1d(sigma)
        z = pm.Normal("z_imputed", 0.0, 1.0, dims=(names.MISSING,))
        completed: list[Parts] = []
        drawn: list[TensorVariable] = []
        start = 0
        for missing, rows in zip(plan.missing, plan.imputed, strict=True):
            eta = matmul(pt.constant(rows.X), beta)
            for level, u in effects.items():
                eta = eta + pt.sum(rows.Z[level] * u[rows.code[level]], axis=1)
            eta = eta + _filled(design, rows.columns, rows.code, beta, effects, completed)
            stop = start + missing.row.size
            drawn.append(eta + per_response[missing.response] * z[start:stop])
            completed.append(_parts(missing, plan, drawn[-1]))
            start = stop
        pm.Deterministic(names.IMPUTED, pt.concatenate(drawn), dims=(names.MISSING,))
        mean = _observed_mean(design, plan, beta, effects, completed)
        pm.Normal("y", mean, per_response[design.response], observed=design.y, dims=(names.OBS,))
    return model


def _observed_mean(
    design: Design,
    plan: Imputation,
    beta: TensorVariable,
    effects: Mapping[Level, TensorVariable],
    completed: Sequence[Parts],
) -> TensorVariable:
    """Linear predictor of the observed rows."""
    X = design.X.copy()
    Z = {level.level: level.Z.copy() for level in design.levels}
    for rows in plan.observed:
        for column in rows.columns:
            X[rows.row, column.term] = 0.0
            for level in design.levels:
                if design.terms[column.term] in level.terms:
                    Z[level.level][rows.row, level.terms.index(design.terms[column.term])] = 0.0
    eta = matmul(pt.constant(X), beta)
    for level in design.levels:
        eta = eta + pt.sum(Z[level.level] * effects[level.level][level.code], axis=1)
    for rows in plan.observed:
        code = {level.level: level.code[rows.row] for level in design.levels}
        eta = pt.inc_subtensor(eta[rows.row], _filled(design, rows.columns, code, beta, effects, completed))
    return eta


def _filled(
    design: Design,
    columns: Sequence[FilledColumn],
    code: Mapping[Level, np.ndarray],
    beta: TensorVariable,
    effects: Mapping[Level, TensorVariable],
    completed: Sequence[Parts],
) -> TensorVariable | float:
    """Sum of the columns that hold imputed values, each times the fixed and random coefficients of its term."""
    total: TensorVariable | float = 0.0
    for column in columns:
        label = design.terms[column.term]
        slope = beta[column.term]
        for level in design.levels:
            if label in level.terms:
                slope = slope + effects[level.level][code[level.level], level.terms.index(label)]
        value = pt.constant(column.known)
        for index, part, session in column.parts:
            value = value * completed[index][part][session]
        total = total + slope * value
    return total


def _parts(missing: MissingValues, plan: Imputation, drawn: TensorVariable) -> Parts:
    """Parts of a completed column over all sessions, as :func:`psymech.data.decompose.split` makes them."""
    values = missing.values.copy()
    counted = np.isfinite(values)
    values[missing.row] = 0.0
    values[~counted] = 0.0  # sessions that no row refers to
    whole = cast(TensorVariable, pt.set_subtensor(pt.constant(values)[missing.row], drawn))
    means: dict[Level, TensorVariable] = {}
    for level, unit in plan.units.items():
        n = np.bincount(unit, weights=counted)
        known = pt.constant(np.bincount(unit, weights=values) / np.maximum(n, 1))
        share = drawn / n[unit[missing.row]]
        means[level] = cast(TensorVariable, pt.inc_subtensor(known[unit[missing.row]], share))[unit]
    parts: dict[Part, TensorVariable] = {"raw": whole, "within": whole - means["patient"], "patient": means["patient"]}
    if "therapist" in means:
        parts["patient"] = means["patient"] - means["therapist"]
        parts["therapist"] = means["therapist"]
    return parts

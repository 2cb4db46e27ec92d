"""True change of patients over treatment, and whether it passes a threshold."""

from typing import Any

import numpy as np
import xarray as xr

from psymech import names
from psymech.arguments import finite, positive
from psymech.errors import DataError, SpecError
from psymech.names import CHAIN, DRAW, INTERCEPT, SAMPLE_DIMS, TERM, TIME
from psymech.posterior import tree as read
from psymech.posterior.newdata import time_basis
from psymech.spec.model import response_label
from psymech.timebasis import TimeBasis, evaluate

PATIENT = "patient"


def true_change(
    tree: xr.DataTree,
    *,
    threshold: float,
    start: float | None = None,
    end: float | None = None,
    cutoff: float | None = None,
    lower_is_better: bool = True,
    response: str | None = None,
) -> xr.Dataset:
    r"""Posterior of each patient's true change, and the probability that it passes a threshold.

    With :math:`\eta_i(t) = x_i(t)'\beta + z_i(t)'(u_i + v_k)` the patient's true score, free of the session's residual,

    .. math:: \Delta_i = \eta_i(t_1) - \eta_i(t_0), \qquad P(\Delta_i \le -\text{threshold} \mid y)

    (:math:`\ge` threshold with ``lower_is_better=False``). Where the reliable change index asks whether an observed
    difference exceeds measurement error, this asks how likely the true one exceeds what you call a change, all sessions
    of the patient and all other patients taken into account.

    Parameters
    ----------
    tree : DataTree
        A fitted growth or process model with time.
    threshold : float
        The smallest change that counts, in outcome units, above zero.
    start, end : float, optional
        Times for all patients; by default each patient's own first and last session with an outcome.
    cutoff : float, optional
        Between dysfunctional and functional: adds ``p_recovered``.
    lower_is_better : bool
    response : str, optional
        Needed with several responses.

    Returns
    -------
    Dataset
        ``change`` and ``end_score`` (chain, draw, patient); over patients ``p_improved``, ``p_deteriorated`` (the same
        threshold the other way), ``p_recovered`` (improved, started on the dysfunctional side of the cut-off, ended on
        the functional side) and ``start``, ``end``.

    Raises
    ------
    SpecError
        No time in the model; the outcome's own last value as a predictor; a binary or ordinal outcome, whose scale
        has no thresholds in outcome units.

    Notes
    -----
    Columns other than time and its products are held at the patient's mean, so that a process model's change is that of
    its trend; what comes with changing predictors is not counted.

    References
    ----------
    Jacobson & Truax (1991), https://doi.org/10.1037/0022-006X.59.1.12

    Examples
    --------
    >>> import psymech as psm
    >>> change = psm.true_change(course, threshold=5, cutoff=10)
    >>> change["p_improved"].sizes
    Frozen({'patient': 149})
    """
    chosen = read.one_response(tree, response)
    positive(threshold, "threshold")
    for argument, value in (("start", start), ("end", end), ("cutoff", cutoff)):
        if value is not None:
            finite(value, argument)
    if start is not None and end is not None and not start < end:
        raise SpecError(f"start and end: expected a start before the end, found {start!r} and {end!r}.")
    _refuse_unsuited(tree, chosen)
    rows = read.rows_of_response(tree, chosen)
    patients = read.unit_of_obs(tree, PATIENT)[rows]
    time = read.constants(tree)[names.TIME_OF_OBS].values[rows].astype(float)
    labels = read.unit_labels(tree, PATIENT)
    present = np.unique(patients)
    first, last = _ends(patients, time, present)
    at_start = time[first] if start is None else np.full(present.size, float(start))
    at_end = time[last] if end is None else np.full(present.size, float(end))
    before, after = _scores(tree, chosen, rows, patients, present, (at_start, at_end), (rows[first], rows[last]))
    change = after - before
    gain = -change if lower_is_better else change
    draws = read.posterior(tree)
    per_draw = (*SAMPLE_DIMS, PATIENT)
    shape = (draws.sizes[CHAIN], draws.sizes[DRAW], present.size)
    result = xr.Dataset(
        {
            "change": (per_draw, change.reshape(shape)),
            "end_score": (per_draw, after.reshape(shape)),
            "p_improved": (PATIENT, (gain >= threshold).mean(axis=0)),
            "p_deteriorated": (PATIENT, (gain <= -threshold).mean(axis=0)),
            "start": (PATIENT, at_start),
            "end": (PATIENT, at_end),
        },
        coords={CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, PATIENT: [labels[i] for i in present]},
        attrs={"threshold": float(threshold), "better": "low" if lower_is_better else "high", "response": chosen},
    )
    if cutoff is None:
        return result
    ill = before > cutoff if lower_is_better else before < cutoff
    well = after < cutoff if lower_is_better else after > cutoff
    recovered = (ill & well & (gain >= threshold)).mean(axis=0)
    return result.assign(p_recovered=(PATIENT, recovered)).assign_attrs(cutoff=float(cutoff))


def _refuse_unsuited(tree: xr.DataTree, response: str) -> None:
    family = read.family_of(tree, response)
    if family not in read.IDENTITY_LINK:
        raise SpecError(
            f"true_change() needs an outcome on the scale of its predictor; the family of {response!r} is {family!r}. "
            "Compare predict(..., kind='mean') at two times instead."
        )
    roles = {str(entry["role"]) for entry in read.response_terms(tree, response)}
    if "time" not in roles:
        raise SpecError("true_change() needs a model with time; this one has none. Use growth(), or process(time=...).")
    if "autoregressive" in roles:
        raise SpecError(
            "true_change() cannot tell a patient's course apart from the outcome's own last value. Fit without "
            "autoregressive=True."
        )


def _ends(patients: np.ndarray, time: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of each patient's first and last row."""
    order = np.lexsort((time, patients))
    return (
        order[np.searchsorted(patients[order], present, side="left")],
        order[np.searchsorted(patients[order], present, side="right") - 1],
    )


def _scores(
    tree: xr.DataTree,
    response: str,
    rows: np.ndarray,
    patients: np.ndarray,
    present: np.ndarray,
    times: tuple[np.ndarray, ...],
    unit_rows: tuple[np.ndarray, ...],
) -> list[np.ndarray]:
    """Return the true score of each patient at each of some times of its own, shape (samples, patients) each.

    `unit_rows` are the rows from which the patient's therapists (and clinics) and their weights at that time are taken.
    """
    draws = read.posterior(tree)
    columns = [columns_at_times(tree, response, rows, patients, present, time) for time in times]
    known = read.labels_of(draws, TERM)
    beta = draws[names.BETA].transpose(*SAMPLE_DIMS, TERM).values.reshape(-1, len(known))
    take = beta[:, [known.index(label) for label in columns[0]]]
    scores = [take @ np.stack(list(each.values())) for each in columns]
    for level in read.levels_of(tree):
        dim = names.term_dim(level)
        u = read.level_effects(tree, level).values
        u = u.reshape(-1, *u.shape[2:])
        code, weight = read.shares_of_obs(tree, level)
        units, weights = [code[each] for each in unit_rows], [weight[each] for each in unit_rows]
        same = [place > 0 and _alike(units, place) and _alike(weights, place) for place in range(len(scores))]
        for position, label in enumerate(read.labels_of(draws, dim)):
            is_intercept = label in (INTERCEPT, response_label(response, INTERCEPT))
            if label not in columns[0] and not is_intercept:
                continue
            effects = np.empty(0)
            for place, (score, each) in enumerate(zip(scores, columns, strict=True)):
                if not same[place]:
                    effects = _weighted(u[:, :, position], units[place], weights[place])
                score += effects if is_intercept else effects * each[label]
    return scores


def _alike(parts: list[np.ndarray], place: int) -> bool:
    return np.array_equal(parts[place], parts[place - 1])


def _weighted(effects: np.ndarray, units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each patient's sum of effects by weight, (samples, patients); units and weights are (patients, m)."""
    if units.shape[1] == 1:
        return effects[:, units[:, 0]] * weights[:, 0]
    return np.einsum("snm,nm->sn", effects[:, units], weights)


def columns_at_times(
    tree: xr.DataTree,
    response: str,
    rows: np.ndarray,
    patients: np.ndarray,
    present: np.ndarray,
    time: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return each column of a response at one time a patient: time there, all else at the patient's mean."""
    basis = time_basis(tree)
    if basis is None:
        raise DataError("expected the time basis among the tree's attributes, found none. Fit again.")
    data = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM)
    known = read.labels_of(data, TERM)
    place = np.searchsorted(present, patients)
    counts = np.bincount(place, minlength=present.size)
    entries = read.response_terms(tree, response)
    means = {
        str(e["label"]): np.bincount(place, data.values[rows, known.index(str(e["label"]))], present.size) / counts
        for e in entries
    }
    alone = {_key(e["factors"][0]): means[str(e["label"])] for e in entries if len(e["factors"]) == 1}
    return {str(e["label"]): _column(e, means[str(e["label"])], alone, basis, time) for e in entries}


def _column(
    entry: dict[str, Any], mean: np.ndarray, alone: dict[tuple, np.ndarray], basis: TimeBasis, time: np.ndarray
) -> np.ndarray:
    moving = [f for f in entry["factors"] if f["column"] == TIME and f["basis"] is not None]
    if not moving:
        return mean
    value = np.prod([evaluate(basis, time)[:, f["basis"]] for f in moving], axis=0)
    for factor in entry["factors"]:
        if factor in moving:
            continue
        if _key(factor) not in alone:
            raise SpecError(
                f"the term {entry['label']!r} is a product of time with {factor['column']!r}, which has no own term."
            )
        value = value * alone[_key(factor)]
    return value


def _key(factor: dict[str, Any]) -> tuple:
    return (factor["column"], factor["part"], factor["lag"], factor["basis"])

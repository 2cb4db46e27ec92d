"""Explained variance: the parts of Rights and Sterba."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError, shown_ids
from psymech.names import CHAIN, DRAW, LEVELS, SAMPLE_DIMS, TERM, Level
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows
from psymech.posterior.shared_rows import mean_moment, nested_in
from psymech.posterior.variance import RESIDUAL, residual_variance
from psymech.spec.model import THERAPIST, response_label

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_VALUES: Final = 20  # of the column that `by` names: more are a measurement, not a grouping
WITHIN: Final = ("fixed.within", RESIDUAL, "slopes.", "switching.")  # sources, or how they start


def r2(tree: xr.DataTree, *, response: str | None = None, by: str | None = None) -> xr.Dataset:
    r"""Parts of the outcome's variance by source, per draw (Rights and Sterba, for two to four levels).

    The fixed part :math:`x'\beta` is split into its deviations within patients, of patients within therapists, of
    therapists (within clinics) and of clinics, each with its variance over the rows. A level's random terms contribute
    :math:`\mathrm{tr}(\Omega\, \overline{zz'})`, split into slopes :math:`\mathrm{tr}(\Omega\, S_z)` and means
    :math:`\bar z'\Omega\,\bar z`, which is the intercept variance where the slopes' columns have mean zero.

    .. math:: 1 = (f_W + f_P + f_T + \textstyle\sum_l v_l + \sum_l m_l + \sigma^2) / \text{total}

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    response : str, optional
        Needed with several responses.
    by : str, optional
        A fixed effect with at most 20 different values, such as an arm: the parts among the rows of each value, with
        their own moments of columns and their own residual variance.

    Returns
    -------
    Dataset
        Dims (chain, draw, source) and, with `by`, the column's name; ``total`` sums to one over all sources,
        ``within`` is over the sources within patients (``fixed.within``, ``slopes.*``, ``switching.*``, ``residual``),
        ``between`` over the rest. A source that is no part of a denominator is NaN there. ``variance`` holds the
        variances. Binary and ordinal outcomes: latent logistic scale, named in the attributes.

    Raises
    ------
    SpecError
        Several responses and none chosen; `by` is no fixed effect, or has too many values.

    Notes
    -----
    ``within`` and ``between`` are clean partitions where predictors with random slopes are centred within
    patients, as in decomposed models; random slopes of other columns are counted as within. A response with one value a
    patient has no part within patients: ``within`` is NaN, and its residual lies between patients.

    Partially nested designs (``therapist_in=``): therapists' parts are those of the patients who have one, times these
    patients' share of the rows; ``fixed.arm`` is the variance of the difference between the arms, which lies neither
    between patients nor between therapists. With ``by`` the arms' column, each arm's own parts: therapists have none in
    the arm without them, and ``fixed.arm`` is zero. Where patients pass from one arm to the other, the therapists'
    intercept is a slope.

    Patients who change therapist: the fixed part is split within and between patients only, as patients are not parts
    of therapists. With several therapists a row (``membership=``), weights w, a therapist's variance counts with
    :math:`\sum_k w_k^2`, on average over the rows: the estimand is the share of a session drawn from those of the
    study, with its weights. Of the means, :math:`\sum_k \bar w_{ik}^2`, with the patient's mean weights, lies between
    patients; the rest is ``switching.therapist``, within patients, for the patient's therapist changes there.

    References
    ----------
    Rights & Sterba (2019), Quantifying explained variance in multilevel models, Psychological Methods 24, 309-338.
    https://doi.org/10.1037/met0000184

    Examples
    --------
    >>> import psymech as psm
    >>> bool((abs(psm.r2(tree)["total"].sum("source") - 1) < 1e-9).all())
    True
    """
    chosen = read.one_response(tree, response)
    rows = _rows(tree, chosen)
    groups = {} if by is None else _groups(tree, by, chosen, rows.index)
    whole = _parts(tree, chosen, rows)
    found = [_parts(tree, chosen, _subset(rows, each)) for each in groups.values()] or [whole]
    sources = list(dict.fromkeys(source for parts in (whole, *found) for source in parts))
    none = np.zeros_like(found[0][RESIDUAL])
    variance = np.stack(
        [np.stack([parts.get(source, none) for source in sources], axis=-1) for parts in found], axis=-1
    )
    is_within = np.array([rows.own == "session" and source.startswith(WITHIN) for source in sources])
    draws = read.posterior(tree)
    coords: dict[str, object] = {CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, "source": sources}
    dims: tuple[str, ...] = (*SAMPLE_DIMS, "source")
    if by is None:
        variance = variance[..., 0]
    else:
        dims, coords = (*dims, by), coords | {by: list(groups)}
    everything = np.ones(len(sources), dtype=bool)
    shares = {"total": everything, "within": is_within, "between": ~is_within}
    return xr.Dataset(
        {"variance": (dims, variance)} | {name: (dims, _share(variance, part)) for name, part in shares.items()},
        coords=coords,
        attrs={"response": chosen, "scale": residual_variance(tree, chosen)[1]},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows of a response.

    Attributes
    ----------
    index : (n,) positions in the tree's rows; patient : (n,).
    own : level at which the response has one value a unit.
    steps : groupings (n,) of the rows by name, each nested in the next.
    treated : (n,) which rows have a therapist, in partially nested designs whose patients stay in their arm; else None.
    changing : levels of which a patient's rows have several units.
    """

    index: Ints
    patient: Ints
    own: str
    steps: Mapping[str, Ints]
    treated: NDArray[np.bool_] | None
    changing: frozenset[Level]


def _rows(tree: xr.DataTree, response: str) -> _Rows:
    index = read.rows_of_response(tree, response)
    own = read.level_of_response(tree, response)
    patient = patient_of_rows(tree)[index]
    treated = np.isin(index, read.rows_at_risk(tree, THERAPIST)) if read.partially_nested(tree, THERAPIST) else None
    if treated is not None and not nested_in(patient, treated):
        treated = None
    data = read.constants(tree)
    above: list[Level] = [level for level in LEVELS if own not in LEVELS or LEVELS.index(level) > LEVELS.index(own)]
    units: dict[Level, Ints] = {
        level: read.unit_of_obs(tree, level)[index]
        for level in above
        if names.group_of_obs(level) in data and not read.is_shared(tree, level)
    }
    if own == "session" and not units:
        raise SpecError("the tree's constant_data names no grouping level, so the fixed part cannot be split.")
    changing: frozenset[Level] = frozenset(
        level
        for level in read.levels_of(tree)
        if own == "session" and level != "patient" and (level not in units or not nested_in(patient, units[level]))
    )
    return _Rows(index, patient, own, _steps(units, treated), treated, changing)


def _steps(units: Mapping[Level, Ints], treated: NDArray[np.bool_] | None) -> dict[str, Ints]:
    """Group the rows by levels, and by the arms of a partially nested design.

    Patients without a therapist are grouped by their arm where others are grouped by therapist.
    """
    steps: dict[str, Ints] = {}
    below: Ints | None = None
    for level, unit in units.items():
        if level == THERAPIST and treated is not None and treated.any() and not treated.all():
            arm = treated + 2 * units.get("clinic", np.zeros_like(unit))
            steps |= {level: np.where(treated, unit, unit.max() + 1 + arm), "arm": arm}
            below = arm
        elif below is None or nested_in(below, unit):
            steps[level] = below = unit
    return steps


def _subset(rows: _Rows, place: Ints) -> _Rows:
    return replace(
        rows,
        index=rows.index[place],
        patient=rows.patient[place],
        steps={name: unit[place] for name, unit in rows.steps.items()},
        treated=None if rows.treated is None else rows.treated[place],
    )


def _groups(tree: xr.DataTree, by: str, response: str, index: Ints) -> dict[float, Ints]:
    """Places of the rows that have each value of a column."""
    x = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM)
    known = read.labels_of(x, TERM)
    label = next((each for each in (by, response_label(response, by)) if each in known), None)
    if label is None:
        raise SpecError(f"by: expected one of the fixed effects {shown_ids(known)}, found {by!r}.")
    values = x.values[index, known.index(label)].astype(float)
    distinct = np.unique(values)
    if distinct.size > MAX_VALUES:
        raise SpecError(
            f"by={by!r}: expected a column of at most {MAX_VALUES} different values, found {distinct.size}."
        )
    return {float(value): np.flatnonzero(values == value) for value in distinct}


def _parts(tree: xr.DataTree, response: str, rows: _Rows) -> dict[str, Floats]:
    """Variance (chain, draw) by source, among the given rows."""
    parts = {f"fixed.{part}": values for part, values in _fixed_parts(tree, rows).items()}
    for level in read.levels_of(tree):
        mine = rows if rows.treated is None or level != THERAPIST else _subset(rows, np.flatnonzero(rows.treated))
        if read.design_rows(tree, level, mine.index).any():
            share = mine.index.size / rows.index.size
            parts |= {f"{kind}.{level}": share * values for kind, values in _random_parts(tree, level, mine).items()}
    parts[RESIDUAL] = residual_variance(tree, response, rows.index)[0]
    return parts


def _random_parts(tree: xr.DataTree, level: Level, rows: _Rows) -> dict[str, Floats]:
    """Slopes and means of a level's random terms, and what of the means changes within patients."""
    z, weight = read.design_rows(tree, level, rows.index), read.effective_share(tree, level, rows.index)
    omega = read.covariance(tree, level)
    mean = weight @ z / weight.sum()
    spread = ((z - mean) * weight[:, None]).T @ (z - mean) / len(z)
    means = np.einsum("cdij,i,j->cd", omega, mean, mean)
    slopes = np.einsum("cdij,ij->cd", omega, spread)
    if level not in rows.changing:
        return {"slopes": slopes, "means": means * weight.mean()}
    code, share = (each[rows.index] for each in read.shares_of_obs(tree, level))
    lasting = mean_moment(np.ones((len(z), 1)), code, share, rows.patient).item()
    return {"slopes": slopes, "means": means * lasting, "switching": means * (weight.mean() - lasting)}


def _share(variance: Floats, part: NDArray[np.bool_]) -> Floats:
    total = variance[:, :, part].sum(axis=2, keepdims=True)
    share = np.full_like(variance, np.nan)
    counted = part.reshape(1, 1, -1, *(1,) * (variance.ndim - 3))
    np.divide(variance, total, out=share, where=counted & (total > 0))
    return share


def _fixed_parts(tree: xr.DataTree, rows: _Rows) -> dict[str, Floats]:
    """Return the variance of the fixed part within patients and at each level the data name, shape (chain, draw)
    each; of a response with one value a unit, at its own level and those above.
    """
    x = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM).values[rows.index].astype(float)
    beta = read.posterior(tree)[names.BETA].transpose(*SAMPLE_DIMS, TERM).values
    parts: dict[str, Floats] = {}
    below, name = x, "within" if rows.own == "session" else rows.own
    for level, unit in rows.steps.items():
        means = _unit_means(below, unit)
        parts[name] = _quadratic(beta, below - means)
        below, name = means, level
    parts[name] = _quadratic(beta, below - below.mean(axis=0))
    return parts


def _unit_means(values: Floats, units: Ints) -> Floats:
    n = np.maximum(np.bincount(units), 1)
    sums = np.stack([np.bincount(units, weights=column) for column in values.T], axis=1)
    return (sums / n[:, None])[units]


def _quadratic(beta: Floats, deviations: Floats) -> Floats:
    return np.einsum("cdi,ij,cdj->cd", beta, deviations.T @ deviations / len(deviations), beta, optimize=True)

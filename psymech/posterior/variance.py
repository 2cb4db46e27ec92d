"""Variance partition: shares of the outcome's variance between therapists, between patients, within patients."""

from collections.abc import Mapping, Sequence
from math import pi
from typing import Final, Literal, get_args

import numpy as np
import xarray as xr

from psymech import names
from psymech.arguments import is_number, mapping
from psymech.errors import SpecError, shown_ids
from psymech.names import CHAIN, DRAW, INTERCEPT, SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.residuals import mean_variance, variance_at

Per = Literal["session", "patient"]
Scale = Literal["latent", "response"]
RESIDUAL: Final = "residual"
LATENT_VARIANCE: Final = pi**2 / 3  # of the standard logistic distribution


def residual_variance(tree: xr.DataTree, response: str, rows: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    """Return the residual variance's draws, shape (chain, draw), and the scale it is on.

    Where it differs between groups of rows or therapists, the average over the given rows, by default all of the
    response's. Gaussian: sigma^2.
    Student: sigma^2 nu / (nu - 2), NaN where nu <= 2 (no variance). Bernoulli and ordinal: pi^2
    / 3, the variance of the latent logistic outcome.
    """
    family = read.family_of(tree, response)
    if family in read.IDENTITY_LINK:
        return mean_variance(tree, response, rows) * _tails(tree, response), f"outcome ({response})"
    if family in ("bernoulli", "ordinal"):
        sizes = read.posterior(tree).sizes
        return np.full(
            (sizes[CHAIN], sizes[DRAW]), LATENT_VARIANCE
        ), f"latent logistic ({response}; residual variance pi^2/3)"
    raise SpecError(
        f"family: variance shares are defined for gaussian, student, bernoulli and ordinal, found {family!r}."
    )


def _tails(tree: xr.DataTree, response: str) -> np.ndarray:
    """Return the variance of residuals over sigma^2, shape (chain, draw): one, or nu / (nu - 2) where it exists."""
    if read.family_of(tree, response) == "gaussian":
        sizes = read.posterior(tree).sizes
        return np.ones((sizes[CHAIN], sizes[DRAW]))
    nu = read.per_response(tree, names.NU, response).values
    return np.divide(nu, nu - 2.0, out=np.full_like(nu, np.nan), where=nu > 2.0)


def variance_partition(
    tree: xr.DataTree,
    *,
    at: Mapping[str, Sequence[float]] | None = None,
    per: Per = "session",
    response: str | None = None,
    sessions: float | None = None,
    scale: Scale = "latent",
) -> xr.Dataset:
    r"""Shares of the variance, per draw, that lie at each level, beyond the fixed effects.

    With random terms z and covariances :math:`\Omega_l` a level contributes :math:`z' \Omega_l z`. By default this
    is averaged over the observed rows, :math:`\mathrm{tr}(\Omega_l\, \overline{z z'})`; with `at` it is a function
    of the columns named.

    ``per="session"``: the variance of one session's outcome. The denominator is clinic + therapist + patient +
    residual.

    ``per="patient"``: the variance of one outcome per patient, which is what the 5 to 8 % of the literature on
    therapist effects refer to. By default that outcome is the patient's expected one, free of session noise:
    clinic + therapist + patient, no residual. With ``sessions=n`` it is a mean of n sessions: + residual / n (with
    AR(1) residuals, the variance of their mean); ``sessions=1``, one score at the end, is the denominator of a
    two-level model of single scores. The therapist's share per patient is larger than the share per session.

    A response with one value a patient (or therapist) has one denominator whatever `per` says: its residual holds all
    that differs between patients of one therapist.

    With multiple membership the therapists' variance of a row with weights w is :math:`\sum_k w_k^2 \sigma_v^2`,
    averaged over the rows: less than that of a patient who stays with one therapist.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    at : mapping, optional
        Random-term columns and the values to put there, e.g. ``{"time": [0, 5, 10]}``, in the units of the design
        column. Other columns keep their observed values and are averaged over. Several names: equal lengths, taken
        together. All random terms made of the same variable must be named together.
    per : {"session", "patient"}
    response : str, optional
        Needed with several responses.
    sessions : float, optional
        Sessions that a patient's outcome is the mean of; with ``per="patient"`` only.
    scale : {"latent", "response"}
        For binary and ordinal outcomes: the latent logistic scale, or that of the outcome itself (probabilities,
        category values; :func:`psymech.posterior.response_scale.response_scale_variances`). Outcomes with an identity
        link have one scale.

    Returns
    -------
    Dataset
        ``share`` and ``variance``, dims (chain, draw, level) and, with `at`, one more: the column's name, or
        ``point`` for several. Levels: patient, therapist, clinic as far as the model has them, and residual (left
        out where the denominator has none). Attributes state the denominator, the scale and what was averaged
        over. For binary and ordinal outcomes the scale is the latent logistic one, residual variance :math:`\pi^2/3`.

    Raises
    ------
    SpecError
        `at` names no random term, or only some of the terms made of one variable; several responses and none chosen.

    References
    ----------
    Goldstein, Browne & Rasbash (2002), Partitioning variation in multilevel models, Understanding Statistics 1,
    223-231. https://doi.org/10.1207/S15328031US0104_02
    Johnson (2014), Extension of Nakagawa & Schielzeth's R2GLMM to random slopes models, Methods in Ecology and
    Evolution 5, 944-946. https://doi.org/10.1111/2041-210X.12225

    Examples
    --------
    >>> import psymech as psm
    >>> parts = psm.variance_partition(course, at={"time": [0, 10]}, per="patient")
    >>> parts["share"].mean(("chain", "draw")).sizes
    Frozen({'level': 2, 'time': 2})
    """
    if per not in get_args(Per):
        raise SpecError(f"per: expected one of {', '.join(get_args(Per))}, found {per!r}.")
    if sessions is not None and (per != "patient" or not (is_number(sessions) and sessions > 0)):
        raise SpecError(
            f"sessions: expected a number above zero together with per='patient', found {sessions!r} with per={per!r}."
        )
    if scale not in get_args(Scale):
        raise SpecError(f"scale: expected one of {', '.join(get_args(Scale))}, found {scale!r}.")
    chosen = read.one_response(tree, response)
    own = read.level_of_response(tree, chosen)
    if own != "session" and sessions not in (None, 1):
        raise SpecError(f"sessions: {chosen!r} has one value a {own}, it is no mean of sessions. Leave sessions out.")
    if scale == "response" and read.family_of(tree, chosen) not in read.IDENTITY_LINK:
        return _on_response_scale(tree, chosen, at=at, per=per, sessions=sessions)
    rows = read.rows_of_response(tree, chosen)
    levels = tuple(level for level in read.levels_of(tree) if read.design_rows(tree, level, rows).any())
    points = _points(tree, at, levels, chosen)
    moments = {level: _moments(tree, level, rows, points) for level in levels}
    parts = {level: np.einsum("cdij,pij->cdp", read.covariance(tree, level), moments[level]) for level in levels}
    residual, named_scale = residual_variance(tree, chosen)
    denominator = " + ".join([*levels[::-1]])
    n_points = next(iter(points.values())).size if points else 1
    if per == "session" or sessions is not None or own != "session":
        factor = 1.0 if sessions is None else _mean_factor(tree, chosen, sessions)
        by_point = variance_at(tree, chosen, points)
        by_point = residual[..., None] if by_point is None else by_point * _tails(tree, chosen)[..., None]
        by_point = np.broadcast_to(by_point, (*residual.shape, n_points))
        parts[RESIDUAL] = by_point * np.asarray(factor)[..., None]
        denominator += " + residual" + ("" if sessions is None else f" of the mean of {sessions:g} sessions")
    unit = per if own == "session" else own
    return _dataset(tree, parts, points, at).assign_attrs(
        per=unit,
        response=chosen,
        denominator=f"{denominator} variance, of one outcome per {unit}",
        scale=named_scale,
        averaged_over="the observed rows" + (f", {', '.join(points)} replaced" if points else ""),
    )


def _on_response_scale(
    tree: xr.DataTree, response: str, *, at: Mapping[str, Sequence[float]] | None, per: Per, sessions: float | None
) -> xr.Dataset:
    from psymech.posterior.response_scale import response_scale_variances

    if at:
        raise SpecError("at= is not available with scale='response'; take scale='latent'.")
    family, own = read.family_of(tree, response), read.level_of_response(tree, response)
    by_level, residual = response_scale_variances(tree, response=response)
    parts = {level: by_level[level][..., None] for level in read.levels_of(tree) if level in by_level}
    denominator = " + ".join(by_level)
    unit = per if own == "session" else own
    if per == "session" or sessions is not None or own != "session":
        parts[RESIDUAL] = residual[..., None] / (1.0 if sessions is None else sessions)
        denominator += " + residual" + ("" if sessions is None else f" of the mean of {sessions:g} sessions")
    return _dataset(tree, parts, {}, None).assign_attrs(
        per=unit,
        response=response,
        denominator=f"{denominator} variance, of one outcome per {unit}",
        scale=f"outcome ({response}; {'probability' if family == 'bernoulli' else 'categories'})",
        averaged_over="the observed rows, other ones of them in each draw",
    )


def _points(
    tree: xr.DataTree, at: Mapping[str, Sequence[float]] | None, levels: Sequence[str], response: str
) -> dict[str, np.ndarray]:
    if at is not None:
        mapping(at, "at", "{'time': [0, 10]}")
    points: dict[str, np.ndarray] = {}
    for name, values in (at or {}).items():
        try:
            points[str(name)] = np.atleast_1d(np.asarray(values, dtype=float))
        except (TypeError, ValueError) as problem:
            raise SpecError(f"at[{name!r}]: expected a list of finite numbers, found {values!r}.") from problem
    several = len(read.responses_of(tree)) > 1
    own = read.response_label(response, "") if several else ""
    known = dict.fromkeys(t for lv in levels for t in read.labels_of(read.posterior(tree), names.term_dim(lv)))
    slopes = [label for label in known if label.startswith(own) and label != own + INTERCEPT]
    for name, values in points.items():
        if name not in slopes:
            raise SpecError(
                f"at: {name!r} is no random slope of {response!r}; its random slopes: {', '.join(slopes) or 'none'}."
            )
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise SpecError(f"at[{name!r}]: expected a list of finite numbers, found {at[name]!r}.")  # type: ignore[index]
    if len({values.size for values in points.values()}) > 1:
        sizes = ", ".join(f"{name}: {values.size}" for name, values in points.items())
        raise SpecError(f"at: expected lists of one length, found {sizes}.")
    forgotten = _companions(tree, set(points), slopes)
    if forgotten:
        raise SpecError(
            f"at: {shown_ids(forgotten)} {'is' if len(forgotten) == 1 else 'are'} made of the same variable as "
            f"{', '.join(points)}. "
            "Name all of them with the values that belong together."
        )
    return points


def _companions(tree: xr.DataTree, named: set[str], slopes: Sequence[str]) -> list[str]:
    """Random slopes that change when a named one does: the other basis columns of time, products with it."""
    infos = {info.label: info for info in read.terms_of(tree)}
    chosen = [infos[label] for label in named if label in infos]
    time = any(info.role == "time" for info in chosen)
    keys = {key for info in chosen for key in info.factors} | named
    found = []
    for label in slopes:
        info = infos.get(label)
        if label in named or info is None:
            continue
        if (time and info.role == "time") or (len(info.factors) > 1 and keys & set(info.factors)):
            found.append(label)
    return found


def _moments(tree: xr.DataTree, level: str, rows: np.ndarray, points: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the mean of zz' over the rows, the named columns replaced, shape (points, q, q); with multiple membership
    each row counts with the sum of its squared weights.
    """
    z = read.design_rows(tree, level, rows)
    share = read.effective_share(tree, level, rows)  # of several units' effects, weighted: the variance of the sum
    labels = read.labels_of(read.posterior(tree), names.term_dim(level))
    replaced = [(labels.index(name), values) for name, values in points.items() if name in labels]
    n_points = next(iter(points.values())).size if points else 1
    mean, moment = share @ z / len(z), (z * share[:, None]).T @ z / len(z)
    out = np.repeat(moment[None], n_points, axis=0)
    for column, values in replaced:
        out[:, column, :] = values[:, None] * mean
        out[:, :, column] = values[:, None] * mean
    for column, values in replaced:
        for other, others in replaced:
            out[:, column, other] = values * others * share.mean()
    return out


def _mean_factor(tree: xr.DataTree, response: str, sessions: float) -> np.ndarray | float:
    """Return Var(mean of n residuals) / Var(one residual): 1 / n when independent."""
    if read.json_attr(tree, names.ATTR_SPEC).get("residual", "iid") != "ar1":
        return 1.0 / sessions
    if sessions != int(sessions):
        raise SpecError(f"sessions: expected a whole number with AR(1) residuals, found {sessions!r}.")
    n, phi = int(sessions), read.per_response(tree, names.PHI, response).values
    lags = np.arange(1, n)
    return (1.0 + 2.0 * ((1.0 - lags / n) * phi[..., None] ** lags).sum(axis=-1)) / n


def _dataset(
    tree: xr.DataTree,
    parts: dict[str, np.ndarray],
    points: Mapping[str, np.ndarray],
    at: Mapping[str, Sequence[float]] | None,
) -> xr.Dataset:
    variance = np.stack(list(parts.values()), axis=2)
    total = variance.sum(axis=2, keepdims=True)
    dims: tuple[str, ...] = (*SAMPLE_DIMS, "level", "point")
    draws = read.posterior(tree)
    coords: dict[str, object] = {CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, "level": list(parts)}
    coords |= {name: ("point", values) for name, values in points.items()}
    share = np.divide(variance, total, out=np.full_like(variance, np.nan), where=total > 0)
    result = xr.Dataset({"share": (dims, share), "variance": (dims, variance)}, coords=coords)
    if not points:
        return result.isel(point=0, drop=True)
    return result.swap_dims(point=next(iter(points))) if len(points) == 1 else result


def slope_share(tree: xr.DataTree, *, term: str = names.TIME, response: str | None = None) -> xr.DataArray:
    r"""Share of a random term's variance that lies between therapists, per draw: the therapists' share of change.

    .. math:: \sigma_{v1}^2 / (\sigma_{v1}^2 + \sigma_{u1}^2)

    (plus the clinics' variance in the denominator where the model has it). Residual variance plays no part; the
    share of the intercept may be zero by randomisation while that of change is not.

    Returns
    -------
    DataArray
        Dims (chain, draw).

    Raises
    ------
    SpecError
        The term does not vary over therapists, or not over patients.

    Examples
    --------
    >>> import psymech as psm
    >>> bool(psm.slope_share(course, term="time").median() < 0.5)
    True
    """
    variance = {
        level: read.level_sd(tree, level=level, term=term, response=response) ** 2 for level in ("therapist", "patient")
    }
    total = variance["therapist"] + variance["patient"]
    if "clinic" in read.levels_of(tree):
        label = read.random_label(tree, "therapist", term, response)
        if label in read.labels_of(read.posterior(tree), names.term_dim("clinic")):
            total = total + read.level_sd(tree, level="clinic", term=label) ** 2
    return (variance["therapist"] / total).rename("slope_share")

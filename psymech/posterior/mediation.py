"""Indirect effects of a fitted mediation model: within patients, between patients, between therapists."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.posterior import tree as read
from psymech.posterior.mediation_paths import (
    PATH_LEVELS,
    MediationTree,
    Path,
    PathLevel,
    expected_product,
    read_mediation,
    unit_deviations,
)

Floats = NDArray[np.float64]
ARROW = " -> "
INDIRECT = {
    "within": "E = ab + cov(a, b over patients) + cov(a, b over therapists), and over clinics where paths vary there "
    "(Kenny, Korchmaros & Bolger 2003; Bauer, Preacher & Gil 2006)",
    "patient": "product of the slopes between patients",
    "therapist": "product of the slopes between therapists",
}


def indirect_effects(
    tree: xr.DataTree,
    *,
    by: Literal["patient", "therapist"] | None = None,
    at: Mapping[str, float] | None = None,
) -> xr.Dataset:
    r"""Return the indirect, direct and total effects of a mediation model, draw by draw.

    Within patients, with random paths at the patient and therapist level,

    .. math:: E = ab + \sigma_{ab}^{(u)} + \sigma_{ab}^{(v)}, \qquad
        E_k = (a + a^v_k)(b + b^v_k) + \sigma_{ab}^{(u)}, \qquad
        E_{ik} = (a + a^v_k + a^u_{ik})(b + b^v_k + b^u_{ik})

    on average, for therapist k (`by` = "therapist") and for patient i of therapist k (`by` = "patient"); paths that
    vary over clinics add their covariance to E, and the clinic's deviations to those of its therapists. Between
    patients and between therapists the indirect effect is the product of the slopes of that level, never of a within
    slope: for a treatment that is a trait, or an outcome measured once a patient, only those levels exist. With
    mediators in series a route of k paths takes the expected product of k jointly normal paths.

    Parameters
    ----------
    tree
        A fit of :func:`psymech.mediation`.
    by
        Effects of each patient or therapist, within patients.
    at
        Values of moderators, by name; their means by default. With `by`, too, they are the same for all units: what a
        patient's own value of a moderator makes of the paths is not part of that patient's effect.

    Returns
    -------
    Dataset
        ``indirect``, ``direct``, ``total``, ``proportion`` over (chain, draw, mediator, level), further
        ``total_indirect`` over (chain, draw, level): ``direct + total_indirect = total`` in every draw. Direct and
        total are the same for all mediators. With several treatments or outcomes there are the dims ``treatment`` and
        ``outcome``. With `by`, the dim of that level takes the place of ``level``. The mediator of a route over
        several is ``"first -> second"``.

        ``proportion`` is indirect / total, missing in draws where direct and indirect effect differ in sign; its
        attribute ``reason`` says how often that is so. ``product_of_means`` is a comparison only: the product of the
        average paths, which leaves out that patients (and therapists) with a larger a may have a larger b. Its
        attribute ``difference`` says how far off it is on average.

    Raises
    ------
    SpecError
        The tree is of another kind of model, no path varies over the units of `by`, or `at` names no moderator.

    References
    ----------
    Kenny, Korchmaros & Bolger (2003), doi:10.1037/1082-989X.8.2.115; Bauer, Preacher & Gil (2006),
    doi:10.1037/1082-989X.11.2.142; Preacher, Zyphur & Zhang (2010), doi:10.1037/a0020141.

    Examples
    --------
    >>> import psymech as psm
    >>> effects = psm.indirect_effects(mediated)
    >>> effects["indirect"].mean(("chain", "draw")).dims
    ('mediator', 'level')
    >>> effects["level"].values.tolist()
    ['within', 'patient', 'therapist']
    """
    model = read_mediation(tree, at=at)
    parts = [
        xr.concat([_of_pair(tree, model, x, y, by) for y in model.outcomes], dim=_index("outcome", model.outcomes))
        for x in model.treatments
    ]
    effects = xr.concat(parts, dim=_index("treatment", model.treatments))
    for dim, labels in (("treatment", model.treatments), ("outcome", model.outcomes)):
        if len(labels) == 1:
            effects = effects.isel({dim: 0}, drop=True)
    return _described(effects, tree, model, by)


def _index(name: str, labels: Sequence[str]) -> xr.IndexVariable:
    return xr.IndexVariable(name, np.array(labels, dtype=str))


def _of_pair(tree: xr.DataTree, model: MediationTree, x: str, y: str, by: str | None) -> xr.Dataset:
    levels = _levels_with_routes(model) if by is None else ("within",)
    routes = model.chains(x, y)
    pieces = [_of_level(tree, model, level, x, y, routes, by) for level in levels]
    if by is not None:
        return pieces[0]
    return xr.concat(pieces, dim=_index("level", levels))


def _levels_with_routes(model: MediationTree) -> tuple[PathLevel, ...]:
    found: list[PathLevel] = [
        level
        for level in PATH_LEVELS
        if any(
            model.along(level, (x, *route, y)) is not None
            for x in model.treatments
            for y in model.outcomes
            for route in model.chains(x, y)
        )
    ]
    if not found:
        raise SpecError(
            "At no level do treatment, mediator and outcome all vary, so there is no indirect effect. Look at the "
            "levels that psymech.check_design reports."
        )
    return tuple(found)


def _of_level(
    tree: xr.DataTree,
    model: MediationTree,
    level: PathLevel,
    x: str,
    y: str,
    routes: tuple[tuple[str, ...], ...],
    by: str | None,
) -> xr.Dataset:
    dims: tuple[str, ...] = names.SAMPLE_DIMS
    beta = read.posterior(tree)[names.BETA]
    coords: dict[str, Any] = {d: beta[d].values for d in names.SAMPLE_DIMS}
    indirect, product = [], []
    for route in routes:
        paths = model.along(level, (x, *route, y))
        if paths is None:
            if by is not None:
                raise SpecError(f"by={by!r}: there is no indirect effect within patients in this model.")
            indirect.append(None)
            product.append(None)
            continue
        value, ids = _route(tree, model, level, paths, by)
        if by is not None:
            dims, coords = (*names.SAMPLE_DIMS, by), {**coords, by: ids}
        indirect.append(value)
        product.append(np.prod([p.draws for p in paths], axis=0))
    shape = tuple(len(coords[d]) for d in dims)
    stacked = np.stack([np.full(shape, np.nan) if v is None else v for v in indirect])
    sample = tuple(len(coords[d]) for d in names.SAMPLE_DIMS)
    products = np.stack([np.full(sample, np.nan) if v is None else v for v in product])
    direct = _direct(tree, model, level, x, y, by, shape)
    if all(value is None for value in indirect):
        direct = np.full(shape, np.nan)  # the outcome has no value at this level
    total_indirect = np.nansum(stacked, axis=0) + 0.0 * direct
    total = direct + total_indirect
    with np.errstate(divide="ignore", invalid="ignore"):
        proportion = np.where(stacked * direct >= 0, stacked / total, np.nan)
    mediator = [ARROW.join(route) for route in routes]
    over = ("mediator", *dims)
    dataset = xr.Dataset(
        {
            "indirect": (over, stacked),
            "direct": (over, np.broadcast_to(direct, stacked.shape).copy()),
            "total": (over, np.broadcast_to(total, stacked.shape).copy()),
            "proportion": (over, proportion),
            "total_indirect": (dims, total_indirect),
            "product_of_means": (("mediator", *names.SAMPLE_DIMS), products),
        },
        coords={**coords, "mediator": mediator},
    )
    return dataset


def _route(
    tree: xr.DataTree, model: MediationTree, level: PathLevel, paths: tuple[Path, ...], by: str | None
) -> tuple[Floats, NDArray | None]:
    if level != "within":
        return np.prod([p.draws for p in paths], axis=0), None
    means = [p.draws for p in paths]
    if by is None:
        return expected_product(means, model.spread(paths)), None
    deviations, ids = unit_deviations(tree, model, by, paths)
    own = [mean[..., None] + deviations[..., i] for i, mean in enumerate(means)]
    rest = model.covariance_of("patient", paths)
    rest = rest if by == "therapist" else np.zeros_like(rest)
    return expected_product(own, np.broadcast_to(rest[:, :, None], (*own[0].shape, *rest.shape[-2:]))), ids


def _direct(
    tree: xr.DataTree, model: MediationTree, level: PathLevel, x: str, y: str, by: str | None, shape: tuple[int, ...]
) -> Floats:
    path = model.paths.get((level, x, y))
    if path is None:
        return np.zeros(shape)
    if by is None:
        return path.draws
    if not model.varies(path):
        return np.broadcast_to(path.draws[..., None], shape).copy()
    try:
        deviations, _ = unit_deviations(tree, model, by, (path,))
    except SpecError:  # the direct path does not vary over these units, though others do
        return np.broadcast_to(path.draws[..., None], shape).copy()
    return path.draws[..., None] + deviations[..., 0]


def _described(effects: xr.Dataset, tree: xr.DataTree, model: MediationTree, by: str | None) -> xr.Dataset:
    first = (*names.SAMPLE_DIMS, "mediator")
    effects = effects.transpose(*first, ..., missing_dims="ignore")
    defined = effects["proportion"].notnull().mean(names.SAMPLE_DIMS)
    low = float(defined.min())
    if low < 1.0:
        effects["proportion"].attrs["reason"] = (
            "missing where direct and indirect effect differ in sign, so that the total is no sum of parts: in "
            f"{100 * (1 - low):.0f}% of the draws at most"
        )
    means = effects["product_of_means"].mean(names.SAMPLE_DIMS)
    effects["product_of_means"].attrs |= {
        "meaning": "for comparison only: product of the average paths, not the indirect effect where paths vary",
    }
    if by is None and "level" in effects.dims and "within" in effects["level"].values:
        off = (means - effects["indirect"].mean(names.SAMPLE_DIMS)).sel(level="within")
        effects["product_of_means"].attrs["difference"] = ", ".join(
            f"{float(v):+.4g}" for v in np.atleast_1d(off.values).ravel()
        )
    for level in INDIRECT:
        effects.attrs[f"indirect_{level}"] = INDIRECT[level]
    effects.attrs["decompose"] = "latent" if model.latent else "observed or as given"
    if model.at:
        effects.attrs["at"] = ", ".join(f"{name} = {value:.4g}" for name, value in model.at.items())
    return effects


def moderated_mediation(tree: xr.DataTree, *, moderator: str, at: Mapping[str, float] | None = None) -> xr.Dataset:
    r"""Return the index of moderated mediation: how the indirect effect within its lowest level changes per unit of a
    moderator.

    .. math:: \frac{d}{dw} E(w) = \sum_j \beta_{jw}\, E\Big[\prod_{i \ne j} x_i(w)\Big]

    with :math:`x_i(w)` the paths on the route and :math:`\beta_{jw}` the change of path j per unit of w. Where the
    moderator acts on one path of two this is Hayes' index, the same at every w (Hayes 2015,
    doi:10.1080/00273171.2014.962683); where it acts on both, the value at `at`. Covariances of random paths are those
    given w.

    Parameters
    ----------
    tree
        A fit of :func:`psymech.mediation` with `moderators`.
    moderator
        Its name.
    at
        Values of the moderators; their means by default.

    Returns
    -------
    Dataset
        ``index`` over (chain, draw, mediator, ...), as :func:`indirect_effects` has them, at the lowest level with an
        indirect effect.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.moderated_mediation(mediated, moderator="reactance")["index"].dims
    ('chain', 'draw', 'mediator')
    """
    model = read_mediation(tree, at=at)
    if moderator not in model.at:
        have = ", ".join(model.at) or "none"
        raise SpecError(f"moderator: {moderator!r} moderates no path of this model; its moderators are: {have}.")
    level = _levels_with_routes(model)[0]
    beta = read.posterior(tree)[names.BETA]
    coords: dict[str, Any] = {d: beta[d].values for d in names.SAMPLE_DIMS}

    def index(x: str, y: str) -> xr.Dataset:
        routes = model.chains(x, y)
        values = [_slope(model, level, model.along(level, (x, *route, y)), moderator) for route in routes]
        shape = tuple(len(coords[d]) for d in names.SAMPLE_DIMS)
        stacked = np.stack([np.full(shape, np.nan) if v is None else np.broadcast_to(v, shape) for v in values])
        dims = ("mediator", *names.SAMPLE_DIMS)
        labels = [ARROW.join(route) for route in routes]
        return xr.Dataset({"index": (dims, stacked)}, coords={**coords, "mediator": labels})

    parts = [
        xr.concat([index(x, y) for y in model.outcomes], dim=_index("outcome", model.outcomes))
        for x in model.treatments
    ]
    out = xr.concat(parts, dim=_index("treatment", model.treatments))
    for dim, labels in (("treatment", model.treatments), ("outcome", model.outcomes)):
        if len(labels) == 1:
            out = out.isel({dim: 0}, drop=True)
    out.attrs |= {"level": level, "at": ", ".join(f"{name} = {value:.4g}" for name, value in model.at.items())}
    return out.transpose(*names.SAMPLE_DIMS, "mediator", ...)


def _slope(model: MediationTree, level: PathLevel, paths: tuple[Path, ...] | None, moderator: str) -> Floats | None:
    if paths is None:
        return None
    spread = model.spread(paths) if level == "within" else model.covariance_of("", paths)
    total = np.zeros(paths[0].draws.shape)
    for j, path in enumerate(paths):
        change = (path.slopes or {}).get(moderator)
        if change is not None:
            others = [i for i in range(len(paths)) if i != j]
            reduced = spread[..., others, :][..., :, others]
            total = total + change * expected_product([paths[i].draws for i in others], reduced)
    return total

"""loo(): how well a fit predicts a session, a patient or a therapist that it has not seen."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.gaussian.leave_numba import leave_rows_out, leave_units_out
from psymech.posterior import tree as read
from psymech.posterior.collapse import CollapsedFit, collapsed_fit
from psymech.spec.model import one_of

if TYPE_CHECKING:
    from arviz_stats import ELPDDataLOO

Unit = Literal["session", "patient", "therapist", "clinic"]
CHUNK_VALUES: Final = 2**22  # draws x units at a time: 32 MB an array
UNITS = ("session", "patient", "therapist", "clinic")


def loo(tree: xr.DataTree, *, unit: Unit = "session") -> "ELPDDataLOO":
    r"""Expected log predictive density of units left out one at a time, without refitting.

    .. math::

        \mathrm{elpd} = \sum_k \log p(y_k \mid y_{-k}),\qquad
        p(y_k \mid y_{-k}) = \int p(y_k \mid y_{-k}, \theta)\, p(\theta \mid y_{-k})\, d\theta

    where k runs over units and theta holds the variance parameters only. The density given theta is exact: fixed
    effects under their normal prior and random effects are integrated out. Only theta is reweighted, by Pareto-smoothed
    importance sampling with ratios :math:`1 / p(y_k \mid y_{-k}, \theta)`, which is why it works for a whole
    therapist, where reweighting draws of random effects fails.

    Parameters
    ----------
    tree
        A fitted tree of a Gaussian model, from either engine. Where patients change therapist: sessions and patients.
    unit
        What is left out, and thus what the answer is about. ``"session"``: one row (one response of one session), the
        patient's and the therapist's other sessions known. ``"patient"``: all rows of a new patient of a known
        therapist. ``"therapist"``: all rows of a new therapist. ``"clinic"``: of a new clinic.

    Returns
    -------
    ELPDDataLOO
        ArviZ's result: ``elpd``, ``se``, ``p``, ``elpd_i`` and ``pareto_k`` by unit (dimension ``obs``, ``patient``,
        ``therapist`` or ``clinic``), ready for ``arviz.compare``. Models to be compared must have the same rows.
        ``log_weights`` is None: units are taken some at a time, so that memory does not grow with rows x draws. With
        few therapists ``se`` itself is uncertain.

    Warns
    -----
    UserWarning
        A Pareto k is too large for that unit's ``elpd_i`` to be trusted.

    Raises
    ------
    SpecError
        No such level in the model, another family than Gaussian, or therapists left out that share patients.

    Notes
    -----
    Where a fixed effect has a prior that is not normal, its draws are kept and reweighted too. The fixed effects'
    prior, also where its location is a mean of the data, counts as known.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), doi:10.1007/s11222-016-9696-4. Vehtari, Simpson, Gelman, Yao & Gabry (2024),
    Pareto smoothed importance sampling, Journal of Machine Learning Research 25(72). Bürkner, Gabry & Vehtari (2021),
    doi:10.1007/s00180-020-01045-4 (densities of left-out rows in normal models).

    Examples
    --------
    >>> import psymech as psm
    >>> int(psm.loo(tree, unit="therapist").n_data_points)
    20
    """
    draws = read.posterior(tree)
    theta = [name for name in draws.data_vars if str(name).startswith("sd_") or name in (names.SIGMA, names.PHI)]
    parts = [_smoothed(draws[theta], densities) for densities in log_density_chunks(tree, unit=unit)]
    elpd_i = xr.concat([part.elpd_i for part in parts], dim=_dim(unit))
    pareto_k = xr.concat([part.pareto_k for part in parts], dim=_dim(unit))
    first = parts[0]
    bad = np.flatnonzero(pareto_k.values > first.good_k)
    if bad.size:
        warnings.warn(
            f"Pareto k is greater than {first.good_k:.2f} for {bad.size} of {pareto_k.size} {unit}s left out: without "
            "them the variance parameters differ too much for their elpd_i to be trusted. Fit again without each of "
            "them, or look for what sets them apart.",
            stacklevel=2,
        )
    return replace(
        first,
        elpd=float(elpd_i.sum()),
        se=float(np.sqrt(elpd_i.size * elpd_i.values.var(ddof=1))),
        p=float(sum(part.p for part in parts)),
        n_data_points=elpd_i.size,
        warning=bool(bad.size),
        elpd_i=elpd_i,
        pareto_k=pareto_k,
        log_weights=None,
    )


def _smoothed(theta: xr.Dataset, densities: xr.DataArray) -> "ELPDDataLOO":
    """Pareto-smoothed importance sampling of some units, whose weights are not kept."""
    from arviz_stats.loo.loo import loo as psis_loo

    tree = xr.DataTree.from_dict({"posterior": theta, "log_likelihood": densities.to_dataset(name="y")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Pareto k: told once, for all units
        found = cast("ELPDDataLOO", psis_loo(tree, var_name="y", pointwise=True))
    return replace(found, log_weights=None)


def _dim(unit: Unit) -> str:
    return names.OBS if unit == "session" else unit


def unit_log_density(tree: xr.DataTree, *, unit: Unit) -> xr.DataArray:
    r"""Draws of :math:`\log p(y_k \mid y_{-k}, \theta)`, dims (chain, draw, unit); see :func:`loo`."""
    return xr.concat(list(log_density_chunks(tree, unit=unit)), dim=_dim(unit))


def log_density_chunks(tree: xr.DataTree, *, unit: Unit) -> Iterator[xr.DataArray]:
    """Go through the units, so many at a time that memory stays small; together they are `unit_log_density`."""
    one_of(unit, UNITS, "unit")
    if unit != "session":
        read.require_level(tree, unit)
    if unit in ("session", "patient") and not read.json_attr(tree, names.ATTR_DESIGN).get("nested", True):
        yield from _crossed(tree, unit)
        return
    fit = collapsed_fit(tree)
    step = max(1, CHUNK_VALUES // fit.coefs.shape[0])
    if unit == "session":
        labels = read.constants(tree)[names.OBS].values
        for start in range(0, labels.size, step):
            rows = np.arange(start, min(start + step, labels.size))
            yield _labelled(tree, _without_rows(fit, rows), names.OBS, labels[rows])
        return
    level = fit.levels.index(unit)
    at_places = leave_units_out(
        fit.cross, fit.coefs, fit.factors, fit.log_det, level=level, beta=fit.beta, prior=fit.prior
    )
    place = np.argsort(fit.order[level])[read.units_with_rows(tree, unit)]
    labels = _labels(tree, unit, fit.order[level].size)[read.units_with_rows(tree, unit)]
    for start in range(0, place.size, step):
        part = slice(start, start + step)
        yield _labelled(tree, at_places[:, place[part]], unit, labels[part])


def _crossed(tree: xr.DataTree, unit: Literal["session", "patient"]) -> Iterator[xr.DataArray]:
    from psymech.posterior.leave_crossed import crossed_log_density

    values = crossed_log_density(tree, unit=unit)
    labels = read.constants(tree)[names.OBS].values if unit == "session" else _labels(tree, unit, values.shape[1])
    step = max(1, CHUNK_VALUES // len(values))
    for start in range(0, labels.size, step):
        part = slice(start, start + step)
        yield _labelled(tree, values[:, part], _dim(unit), labels[part])


def _without_rows(fit: CollapsedFit, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return leave_rows_out(
        fit.cross,
        fit.columns,
        fit.y,
        fit.unit,
        fit.residual.terms(),
        fit.coefs,
        fit.factors,
        beta=fit.beta,
        prior=fit.prior,
        rows=rows,
    )


def _labelled(tree: xr.DataTree, values: NDArray[np.float64], dim: str, labels: np.ndarray) -> xr.DataArray:
    draws = read.posterior(tree)
    shape = (draws.sizes[names.CHAIN], draws.sizes[names.DRAW], labels.size)
    coords = {each: draws[each].values for each in names.SAMPLE_DIMS} | {dim: labels}
    return xr.DataArray(values.reshape(shape), dims=(*names.SAMPLE_DIMS, dim), coords=coords, name="log_density")


def _labels(tree: xr.DataTree, level: str, n: int) -> np.ndarray:
    for place in (read.posterior(tree), read.constants(tree)):
        if level in place.coords and place.sizes[level] == n:
            return place[level].values
    raise SpecError(f"The fit does not name its {n} {level}s.")

"""loo(): how well a fit predicts a session, a patient or a therapist that it has not seen."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.gaussian.leave_numba import rows_left_out, units_left_out
from psymech.posterior import tree as read
from psymech.posterior.collapse import collapsed_fit
from psymech.posterior.pareto import smoothed
from psymech.spec.model import one_of

if TYPE_CHECKING:
    from arviz_stats import ELPDDataLOO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Unit = Literal["session", "patient", "therapist", "clinic"]
CHUNK_VALUES: Final = 2**24  # draws x units at a time: 128 MB an array
GOOD_K: Final = 0.7  # Vehtari et al. 2024; less where there are few draws
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
    DataError
        Fewer than 25 draws, or draws that do not differ.

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
    from arviz_stats import ELPDDataLOO

    labels = _labels(tree, unit)
    elpd, lppd, pareto_k = np.full((3, labels.size), np.nan)
    efficiency = _relative_efficiency(tree)
    n_draws = 0
    for which, densities in density_parts(tree, unit=unit):
        part = smoothed(densities, relative_efficiency=efficiency)
        elpd[which], lppd[which], pareto_k[which] = part.elpd, part.lppd, part.pareto_k
        n_draws = densities.shape[1]
    good_k = min(1.0 - 1.0 / np.log10(n_draws), GOOD_K)
    kept = _kept(tree, unit)
    elpd, lppd, pareto_k, labels = elpd[kept], lppd[kept], pareto_k[kept], labels[kept]
    bad = np.flatnonzero(~(pareto_k <= good_k))
    if bad.size:
        warnings.warn(
            f"Pareto k is greater than {good_k:.2f} for {bad.size} of {pareto_k.size} {unit}s left out: without "
            "them the variance parameters differ too much for their elpd_i to be trusted. Fit again without each of "
            "them, or look for what sets them apart.",
            stacklevel=2,
        )
    coords, dims = {_dim(unit): labels}, (_dim(unit),)
    return ELPDDataLOO(
        elpd=float(elpd.sum()),
        se=float(np.sqrt(elpd.size * elpd.var(ddof=1))),
        p=float((lppd - elpd).sum()),
        n_samples=n_draws,
        n_data_points=elpd.size,
        scale="log",
        warning=bool(bad.size),
        good_k=good_k,
        elpd_i=xr.DataArray(elpd, coords=coords, dims=dims, name="elpd_i"),
        pareto_k=xr.DataArray(pareto_k, coords=coords, dims=dims, name="pareto_k"),
    )


def _relative_efficiency(tree: xr.DataTree) -> float:
    """Effective sample size of the variance parameters over the number of draws, their average; one for one chain."""
    from arviz_stats.sampling_diagnostics import ess

    draws = read.posterior(tree)
    if draws.sizes[names.CHAIN] == 1:
        return 1.0
    theta = [name for name in draws.data_vars if str(name).startswith("sd_") or name in (names.SIGMA, names.PHI)]
    found = ess(draws[theta], method="mean")
    every = np.concatenate([found[name].values.ravel() for name in theta])
    return float(every.mean()) / (draws.sizes[names.CHAIN] * draws.sizes[names.DRAW])


def _dim(unit: Unit) -> str:
    return names.OBS if unit == "session" else unit


def _kept(tree: xr.DataTree, unit: Unit) -> Ints:
    return np.arange(read.constants(tree).sizes[names.OBS]) if unit == "session" else read.units_with_rows(tree, unit)


def unit_log_density(tree: xr.DataTree, *, unit: Unit) -> xr.DataArray:
    r"""Draws of :math:`\log p(y_k \mid y_{-k}, \theta)`, dims (chain, draw, unit); see :func:`loo`."""
    draws, labels = read.posterior(tree), _labels(tree, unit)
    values = np.full((draws.sizes[names.CHAIN] * draws.sizes[names.DRAW], labels.size), np.nan)
    for which, densities in density_parts(tree, unit=unit):
        values[:, which] = densities.T
    kept = _kept(tree, unit)
    shape = (draws.sizes[names.CHAIN], draws.sizes[names.DRAW], kept.size)
    coords = {each: draws[each].values for each in names.SAMPLE_DIMS} | {_dim(unit): labels[kept]}
    dims = (*names.SAMPLE_DIMS, _dim(unit))
    return xr.DataArray(values[:, kept].reshape(shape), dims=dims, coords=coords, name="log_density")


def density_parts(tree: xr.DataTree, *, unit: Unit) -> Iterator[tuple[Ints, Floats]]:
    r"""Go through the units, so many at a time that memory stays small: which ones of the tree's rows or units, and
    :math:`\log p(y_k \mid y_{-k}, \theta)`, (units, draws).
    """
    one_of(unit, UNITS, "unit")
    if unit != "session":
        read.require_level(tree, unit)
    if unit in ("session", "patient") and not read.json_attr(tree, names.ATTR_DESIGN).get("nested", True):
        yield from _crossed(tree, unit)
        return
    fit = collapsed_fit(tree)
    at_once = max(1, CHUNK_VALUES // len(fit.residual.coefs))
    if unit == "session":
        yield from rows_left_out(
            fit.cross,
            fit.columns,
            fit.y,
            fit.unit,
            fit.terms,
            fit.residual.coefs,
            fit.factors,
            beta=fit.beta,
            prior=fit.prior,
            at_once=at_once,
        )
        return
    level = fit.levels.index(unit)
    for places, densities in units_left_out(
        fit.cross,
        fit.residual.coefs,
        fit.factors,
        (fit.residual.counts, fit.residual.terms),
        level=level,
        beta=fit.beta,
        prior=fit.prior,
        at_once=at_once,
    ):
        yield fit.order[level][places], densities


def _crossed(tree: xr.DataTree, unit: Literal["session", "patient"]) -> Iterator[tuple[Ints, Floats]]:
    from psymech.posterior.leave_crossed import crossed_log_density

    values = crossed_log_density(tree, unit=unit)
    step = max(1, CHUNK_VALUES // len(values))
    for start in range(0, values.shape[1], step):
        which = np.arange(start, min(start + step, values.shape[1]))
        yield which, np.ascontiguousarray(values[:, which].T)


def _labels(tree: xr.DataTree, unit: Unit) -> np.ndarray:
    one_of(unit, UNITS, "unit")
    if unit == "session":
        return read.constants(tree)[names.OBS].values
    read.require_level(tree, unit)
    return read.posterior(tree)[unit].values

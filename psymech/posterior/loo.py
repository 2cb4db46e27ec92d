"""loo(): how well a fit predicts a session, a patient or a therapist that it has not seen."""

from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.gaussian.leave_numba import leave_rows_out, leave_units_out
from psymech.posterior import tree as read
from psymech.posterior.collapse import collapsed_fit
from psymech.spec.model import one_of

if TYPE_CHECKING:
    from arviz_stats import ELPDDataLOO

Unit = Literal["session", "patient", "therapist", "clinic"]
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
        A fitted tree of a Gaussian model with nested levels, from either engine.
    unit
        What is left out, and thus what the answer is about. ``"session"``: one row (one response of one session), the
        patient's and the therapist's other sessions known. ``"patient"``: all rows of a new patient of a known
        therapist. ``"therapist"``: all rows of a new therapist. ``"clinic"``: of a new clinic.

    Returns
    -------
    ELPDDataLOO
        ArviZ's result: ``elpd``, ``se``, ``p``, ``elpd_i`` and ``pareto_k`` by unit (dimension ``obs``, ``patient``,
        ``therapist`` or ``clinic``), ready for ``arviz.compare``. Models to be compared must have the same rows.
        ArviZ warns where a Pareto k is too large to trust. With few therapists ``se`` itself is uncertain.

    Raises
    ------
    SpecError
        No such level in the model, another family than Gaussian, or patients crossed with therapists.

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
    from arviz_stats.loo.loo import loo as psis_loo

    log_lik = unit_log_density(tree, unit=unit)
    draws = read.posterior(tree)
    theta = [name for name in draws.data_vars if str(name).startswith("sd_") or name in (names.SIGMA, names.PHI)]
    groups = {
        "posterior": draws[theta],
        "log_likelihood": log_lik.to_dataset(name="y"),
    }
    return cast("ELPDDataLOO", psis_loo(xr.DataTree.from_dict(groups), var_name="y", pointwise=True))


def unit_log_density(tree: xr.DataTree, *, unit: Unit) -> xr.DataArray:
    r"""Draws of :math:`\log p(y_k \mid y_{-k}, \theta)`, dims (chain, draw, unit); see :func:`loo`."""
    one_of(unit, UNITS, "unit")
    if unit != "session":
        read.require_level(tree, unit)
    fit = collapsed_fit(tree)
    draws = read.posterior(tree)
    shape = (draws.sizes[names.CHAIN], draws.sizes[names.DRAW])
    coords = {dim: draws[dim].values for dim in names.SAMPLE_DIMS}
    if unit == "session":
        found = leave_rows_out(
            fit.cross,
            fit.columns,
            fit.y,
            fit.unit,
            fit.residual.terms(),
            fit.coefs,
            fit.factors,
            beta=fit.beta,
            prior=fit.prior,
        )
        dim, labels = names.OBS, read.constants(tree)[names.OBS].values
    else:
        level = fit.levels.index(unit)
        at_places = leave_units_out(
            fit.cross, fit.coefs, fit.factors, fit.log_det, level=level, beta=fit.beta, prior=fit.prior
        )
        found = np.empty_like(at_places)
        found[:, fit.order[level]] = at_places
        kept = read.units_with_rows(tree, unit)
        dim, labels = unit, _labels(tree, unit, found.shape[1])[kept]
        found = found[:, kept]
    return xr.DataArray(
        found.reshape(*shape, -1), dims=(*names.SAMPLE_DIMS, dim), coords=coords | {dim: labels}, name="log_density"
    )


def _labels(tree: xr.DataTree, level: str, n: int) -> np.ndarray:
    for place in (read.posterior(tree), read.constants(tree)):
        if level in place.coords and place.sizes[level] == n:
            return place[level].values
    raise SpecError(f"The fit does not name its {n} {level}s.")

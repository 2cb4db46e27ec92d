"""Residual SDs of a fit: one of all sessions, one a group of rows, or one a therapist."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.names import SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.caseload import caseload
from psymech.posterior.summaries import interval, interval_names
from psymech.residual_groups import group_labels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RowSD:
    """Residual SDs of a response's rows: `sd` (samples, n_sds), `code` (rows,) which of them each row has."""

    sd: Floats
    code: Ints

    def of_rows(self, draw: NDArray[np.int64]) -> Floats:
        """SD of each row in some of the samples, (s, rows) or (s, 1) where all rows share one."""
        return self.sd[draw] if self.sd.shape[1] == 1 else self.sd[draw][:, self.code]


def differs(tree: xr.DataTree) -> bool:
    """Whether residual SDs differ between rows of one response."""
    return read.json_attr(tree, names.ATTR_SPEC).get("residual_by") is not None


def row_sd(tree: xr.DataTree, response: str, rows: Ints) -> RowSD:
    """Return the residual SDs of a response's rows, whichever structure the model has."""
    draws = read.posterior(tree)
    if names.LOG_SIGMA in draws:
        return RowSD(np.exp(_flat(draws[names.LOG_SIGMA], "therapist")), read.unit_of_obs(tree, "therapist")[rows])
    if names.SIGMA in draws and names.RESIDUAL_GROUP in draws[names.SIGMA].dims:
        code = read.constants(tree)[names.RESIDUAL_GROUP_OF_OBS].values.astype(np.int64)
        return RowSD(_flat(draws[names.SIGMA], names.RESIDUAL_GROUP), code[rows])
    return RowSD(read.residual_sd(tree, response).values.reshape(-1, 1), np.zeros(rows.size, dtype=np.int64))


def mean_variance(tree: xr.DataTree, response: str, rows: Ints | None = None) -> Floats:
    """Return the residual variance of a session, averaged over rows (the response's), shape (chain, draw)."""
    found = row_sd(tree, response, read.rows_of_response(tree, response) if rows is None else rows)
    weights = np.bincount(found.code, minlength=found.sd.shape[1]) / found.code.size
    sizes = read.posterior(tree).sizes
    return (found.sd**2 @ weights).reshape(sizes[names.CHAIN], sizes[names.DRAW])


def variance_at(tree: xr.DataTree, response: str, points: Mapping[str, Floats]) -> Floats | None:
    """Return sigma^2 at values of the column that makes the groups, shape (chain, draw, points); None where that column
    is not among the points.
    """
    column = read.json_attr(tree, names.ATTR_SPEC).get("residual_by")
    if column not in points or names.RESIDUAL_GROUP not in read.posterior(tree).dims:
        return None
    sigma = read.posterior(tree)[names.SIGMA].transpose(*SAMPLE_DIMS, names.RESIDUAL_GROUP)
    labels = read.labels_of(sigma, names.RESIDUAL_GROUP)
    asked = group_labels(points[column])
    unknown = sorted(set(asked) - set(labels))
    if unknown:
        raise SpecError(
            f"at[{column!r}]: residual SDs are known for {', '.join(labels)} only, found {', '.join(unknown)}."
        )
    return sigma.values[..., [labels.index(each) for each in asked]] ** 2


def _flat(values: xr.DataArray, dim: str) -> Floats:
    array = values.transpose(*SAMPLE_DIMS, dim).values
    return array.reshape(-1, array.shape[-1])


def consistency(tree: xr.DataTree, *, ci_prob: float | None = None) -> pd.DataFrame:
    r"""Table of the therapists' residual SDs: how evenly the sessions of their patients run.

    .. math:: \log \sigma_k = \log \sigma + s_k,\quad s_k \sim N(0, \tau^2)

    :math:`\sigma_k` is the SD of therapist k's sessions around what fixed effects, patient and therapist predict. A
    small one means that sessions run close to the expected course, whatever that course is.

    Parameters
    ----------
    tree : DataTree
        A fit with ``residual_by="therapist"``.
    ci_prob : float, optional
        Probability of the intervals; ArviZ's setting (0.89) by default.

    Returns
    -------
    DataFrame
        Index: the therapists, in the tree's order. Columns: ``sigma`` (posterior mean of :math:`\sigma_k`) and its
        interval, ``ratio`` (posterior median of :math:`\sigma_k / \sigma`, to the typical therapist), ``p_below``
        (posterior probability that :math:`\sigma_k < \sigma`: more even than is typical), ``n_patients``,
        ``n_sessions``. ``attrs`` hold mean and interval of ``sd_log_sigma``, and of ``corr_log_sigma`` where the fit
        has it (with that prefix): below zero, therapists with a higher effect have more even sessions.

    Raises
    ------
    SpecError
        The model has one residual SD for all therapists.

    References
    ----------
    Hedeker, Mermelstein & Demirtas (2008), An application of a mixed-effects location scale model for analysis of
    ecological momentary assessment data, Biometrics 64, 627-634. https://doi.org/10.1111/j.1541-0420.2007.00924.x

    Examples
    --------
    >>> import psymech as psm
    >>> spec = psm.growth("phq9", residual_by="therapist")
    >>> psm.consistency(psm.fit(spec, data, seed=1)).sort_values("sigma")  # doctest: +SKIP
    """
    draws = read.posterior(tree)
    if names.LOG_SIGMA not in draws:
        raise SpecError(
            "consistency() needs residual SDs of therapists, but this model has none. Fit with residual_by='therapist'."
        )
    log_sd = draws[names.LOG_SIGMA].transpose(*SAMPLE_DIMS, "therapist")
    sd = log_sd.copy(data=np.exp(log_sd.values))
    ratio = log_sd.values - np.log(draws[names.SIGMA].transpose(*SAMPLE_DIMS).values)[..., None]
    low, high = interval(sd, ci_prob)
    low_name, high_name = interval_names(ci_prob)
    table = pd.DataFrame(
        {
            "sigma": sd.mean(SAMPLE_DIMS).values,
            low_name: low.values,
            high_name: high.values,
            "ratio": np.exp(np.median(ratio, axis=(0, 1))),
            "p_below": (ratio < 0).mean(axis=(0, 1)),
        },
        index=pd.Index(read.unit_labels(tree, "therapist"), name="therapist"),
    ).iloc[read.units_with_rows(tree, "therapist")]
    response = read.one_response(tree, None)
    table = table.join(caseload(tree, level="therapist", response=response))
    spread = draws[names.SD_LOG_SIGMA]
    ends = interval(spread, ci_prob)
    table.attrs |= {names.SD_LOG_SIGMA: float(spread.mean()), low_name: float(ends[0]), high_name: float(ends[1])}
    if names.CORR_LOG_SIGMA in draws:
        corr = draws[names.CORR_LOG_SIGMA]
        low, high = interval(corr, ci_prob)
        table.attrs |= {names.CORR_LOG_SIGMA: float(corr.mean())}
        table.attrs |= {
            f"{names.CORR_LOG_SIGMA}_{low_name}": float(low),
            f"{names.CORR_LOG_SIGMA}_{high_name}": float(high),
        }
    return table

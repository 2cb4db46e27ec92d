"""Log densities of the rows for many draws at once, from the definition of the model: covariances are written out.

They are test quantities of a calibration run, and nothing here is shared with the likelihoods that are calibrated.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln

from psymech import names
from psymech.design import Design

Floats = NDArray[np.float64]
LOG_2PI = float(np.log(2 * np.pi))
BLOCK_BYTES = 2**26  # of the covariance matrices that are held at once


def has_marginal(design: Design) -> bool:
    """Whether the random effects of a design can be integrated out in blocks of rows: Gaussian rows, nested units."""
    return design.family == "gaussian" and design.nested


def log_marginal(design: Design, values: Mapping[str, Floats]) -> Floats:
    r"""Log density of the rows given fixed effects and variances, random effects integrated out, for each draw.

    .. math:: y_b \sim N(X_b \beta,\; \textstyle\sum_l Z_{lb} (I \otimes \Omega_l) Z_{lb}' + R_b)

    over blocks b of rows that share a unit of the top level. Each block's covariance is factored as a whole.

    Parameters
    ----------
    design
        Nested, Gaussian.
    values
        By name, each (n, ...) with n draws.

    Returns
    -------
    ndarray, shape (n,)
    """
    covariances = [values[names.corr(level.level)] * _outer(values[names.sd(level.level)]) for level in design.levels]
    error = design.y - values[names.BETA] @ design.X.T
    total = np.zeros(len(error))
    top = design.levels[-1].code
    for block in _blocks(top):
        for part in _parts(len(error), block.size):
            V = _residual_covariance(design, {k: v[part] for k, v in values.items()}, block)
            for level, covariance in zip(design.levels, covariances, strict=True):
                Z, code = level.Z[block], level.code[block]
                V += (code[:, None] == code) * np.einsum("ia,nab,jb->nij", Z, covariance[part], Z)
            total[part] += _log_normal(error[part][:, block], V)
    return total


def log_conditional(design: Design, values: Mapping[str, Floats]) -> Floats:
    """Log density of the rows given fixed and random effects, for each draw; arguments as in `log_marginal`."""
    eta = values[names.BETA] @ design.X.T
    for level in design.levels:
        eta = eta + np.einsum("ia,nia->ni", level.Z, values[names.effect(level.level)][:, level.code])
    y = design.y
    if design.family == "bernoulli":
        return -np.logaddexp(0.0, np.where(y == 1, -eta, eta)).sum(axis=1)
    if design.family == "ordinal":
        cut = values[names.CUTPOINTS]
        edges = np.column_stack([np.full(len(cut), -np.inf), cut, np.full(len(cut), np.inf)])
        k = y.astype(int)
        with np.errstate(divide="ignore"):
            return np.log(expit(edges[:, k + 1] - eta) - expit(edges[:, k] - eta)).sum(axis=1)
    sd = _row_sd(design, values)
    error = y - eta
    if design.family == "student":
        nu = values[names.NU][:, None]
        constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(np.pi * nu) - np.log(sd)
        return (constant - (nu + 1) / 2 * np.log1p((error / sd) ** 2 / nu)).sum(axis=1)
    if design.residual == "iid":
        return -(0.5 * (error / sd) ** 2 + np.log(sd) + 0.5 * LOG_2PI).sum(axis=1)
    total = np.zeros(len(error))
    together = design.row if design.residual == "unstructured" else design.levels[0].code
    for block in _blocks(together):
        for part in _parts(len(error), block.size):
            V = _residual_covariance(design, {k: v[part] for k, v in values.items()}, block)
            total[part] += _log_normal(error[part][:, block], V)
    return total


def _row_sd(design: Design, values: Mapping[str, Floats]) -> Floats:
    """Residual SD of each row, (n, n_obs)."""
    if names.LOG_SIGMA in values:
        therapists = design.level("therapist")
        assert therapists is not None
        return np.exp(values[names.LOG_SIGMA])[:, therapists.code]
    sigma = values[names.SIGMA]
    return sigma.reshape(len(sigma), -1)[:, design.sd_code]


def _residual_covariance(design: Design, values: Mapping[str, Floats], block: NDArray[np.int64]) -> Floats:
    sd = _row_sd(design, values)[:, block]
    if design.residual == "unstructured":
        row, response = design.row[block], design.response[block]
        corr = (row[:, None] == row) * values[names.RESIDUAL_CORR][:, response][:, :, response]
    elif design.residual == "ar1":
        patient, response = design.levels[0].code[block], design.response[block]
        same = (patient[:, None] == patient) & (response[:, None] == response)
        apart = np.where(same, np.abs(np.subtract.outer(design.session[block], design.session[block])), 0).astype(int)
        corr = same * values[names.PHI][:, None, None] ** apart
    else:
        corr = np.eye(block.size)
    return corr * _outer(sd)


def _outer(sd: Floats) -> Floats:
    return sd[:, :, None] * sd[:, None, :]


def _blocks(code: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    order = np.argsort(code, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def _parts(n: int, size: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // (8 * size * size))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _log_normal(error: Floats, V: Floats) -> Floats:
    """Log density of each error (n, k) under its covariance (n, k, k).

    The last row of the Cholesky factor of a matrix bordered by the error is the standardised error.
    """
    n, k = error.shape
    bordered = np.empty((n, k + 1, k + 1))
    bordered[:, :k, :k] = V
    bordered[:, k, :k] = bordered[:, :k, k] = error
    bordered[:, k, k] = np.finfo(float).max
    root = np.linalg.cholesky(bordered)
    log_det = np.log(np.diagonal(root[:, :k, :k], axis1=1, axis2=2)).sum(axis=1)
    return -0.5 * (root[:, k, :k] ** 2).sum(axis=1) - log_det - 0.5 * LOG_2PI * k

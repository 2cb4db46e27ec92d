"""Leaving out sessions or patients of a Gaussian fit whose patients change therapist: exact, without refitting."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows
from psymech.posterior.collapse import beta_prior
from psymech.posterior.residuals import row_sd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_VALUES: Final = 2**22  # of covariances, of what patients share or of their rows, draws at a time: 32 MB


@dataclass(frozen=True, slots=True, eq=False)
class _Patient:
    """Rows (n,) of a patient; `columns` (s,) of what patients share that have values there, `A` (n, s); Z (n, q)."""

    rows: Ints
    columns: Ints
    A: Floats
    Z: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """A fit as y = A c + Z u + e with c, shared by patients: fixed effects under their prior, effects of upper levels.

    Attributes
    ----------
    rest : (D, n) or (1, n) outcome minus the prior mean of the fixed part.
    n_shared : m, the length of c: the fixed effects, then the units of each upper level.
    beta_root : (p, p), roots : units of each upper level and (D, q, q), square roots of prior covariances.
    patient_root : (D, q, q); precision : (D, n_groups) of residuals; group : (n,).
    """

    patients: tuple[_Patient, ...]
    rest: Floats
    n_shared: int
    beta_root: Floats
    roots: tuple[tuple[int, Floats], ...]
    patient_root: Floats
    precision: Floats
    group: Ints


def crossed_log_density(tree: xr.DataTree, *, unit: Literal["session", "patient"]) -> Floats:
    r"""Return draws of :math:`\log p(y_k \mid y_{-k}, \theta)`, shape (draws, units), fixed and random effects
    integrated out; units are rows, or the patients in the tree's order.

    With Q the inverse of the marginal covariance of all rows, :math:`y_k \mid y_{-k}` is normal with precision
    :math:`Q_{kk}` and :math:`y_k - E[y_k \mid y_{-k}] = Q_{kk}^{-1} (Q y)_k` (Bürkner, Gabry & Vehtari 2021,
    doi:10.1007/s00180-020-01045-4). Q is never made: with :math:`W_i` the inverse covariance of a patient's rows given
    the effects c that patients share, and A their columns, :math:`Q_{ij} = W_i [i = j] - W_i A_i\,
    \mathrm{Cov}(c \mid y)\, A_j' W_j`.

    Raises
    ------
    SpecError
        Another family than Gaussian, residuals that are not independent, or an SD of each therapist.
    """
    _refuse(tree)
    fit = _read(tree)
    n_draws = fit.precision.shape[0]
    n_units = fit.group.size if unit == "session" else len(fit.patients)
    out = np.empty((n_draws, n_units))
    pairs = sum(patient.rows.size**2 for patient in fit.patients)
    step = max(1, CHUNK_VALUES // max(fit.n_shared**2, pairs))
    for start in range(0, n_draws, step):
        draws = slice(start, start + step)
        for place, densities in _chunk(fit, draws, whole=unit == "patient"):
            where = fit.patients[place].rows if unit == "session" else place
            out[draws, where] = densities
    return out


def _refuse(tree: xr.DataTree) -> None:
    spec = read.json_attr(tree, names.ATTR_SPEC)
    families = {read.family_of(tree, response) for response in read.responses_of(tree)}
    obstacle = {
        f"the family is {', '.join(sorted(families))}": families != {"gaussian"},
        f"the residuals are {spec.get('residual', 'iid')!r}": spec.get("residual", "iid") != "iid",
        "each therapist has a residual SD (residual_by='therapist')": names.LOG_SIGMA in read.posterior(tree),
    }
    found = [text for text, holds in obstacle.items() if holds]
    if found:
        raise SpecError(
            "Leaving units out without refitting, where patients change therapist, needs Gaussian responses and "
            f"independent residuals; here {' and '.join(found)}. Fit again without each group of units "
            "(cross-validation by refitting)."
        )


def _read(tree: xr.DataTree) -> _Fit:
    data = read.constants(tree)
    X = data[names.DESIGN_X].transpose(names.OBS, names.TERM).values.astype(float)
    n, y = len(X), read.outcome(tree)
    beta = read.posterior(tree)[names.BETA].transpose(*names.SAMPLE_DIMS, names.TERM).values.reshape(-1, X.shape[1])
    prior = beta_prior(tree)
    if prior is None:  # known in each draw, which is then reweighted for them too
        pieces, rest, beta_root = [], y - beta @ X.T, np.zeros((0, 0))
    else:
        values, vectors = np.linalg.eigh(prior[1])
        pieces, rest, beta_root = [X], (y - X @ prior[0])[None], vectors / np.sqrt(values)
    every, roots = np.arange(n), []
    for level in read.levels_of(tree):
        if level != "patient":
            z, (code, weight) = read.design_rows(tree, level, every), read.shares_of_obs(tree, level)
            n_units = read.posterior(tree).sizes[level]
            columns = np.zeros((n, n_units, z.shape[1]))
            for j in range(code.shape[1]):
                columns[every, code[:, j]] += weight[:, [j]] * z
            pieces.append(columns.reshape(n, -1))
            roots.append((n_units, read.covariance_root(tree, level)))
    shared = np.concatenate(pieces, axis=1) if pieces else np.zeros((n, 0))
    own = "patient" in read.levels_of(tree)
    Z = read.design_rows(tree, "patient", every) if own else np.zeros((n, 0))
    patient_root = read.covariance_root(tree, "patient") if own else np.zeros((len(beta), 0, 0))
    sd, group = _residual_sds(tree)
    owner = patient_of_rows(tree)
    patients = []
    for place in range(int(owner.max()) + 1):
        rows = np.flatnonzero(owner == place)
        columns = np.flatnonzero(shared[rows].any(axis=0))
        patients.append(_Patient(rows, columns, shared[np.ix_(rows, columns)], Z[rows]))
    return _Fit(tuple(patients), rest, shared.shape[1], beta_root, tuple(roots), patient_root, sd**-2.0, group)


def _residual_sds(tree: xr.DataTree) -> tuple[Floats, Ints]:
    """Residual SDs (D, n_groups) and which of them each row has."""
    responses, data = read.responses_of(tree), read.constants(tree)
    if len(responses) == 1:
        found = row_sd(tree, responses[0], np.arange(data.sizes[names.OBS]))
        return found.sd, found.code
    sd = np.column_stack([read.residual_sd(tree, response).values.ravel() for response in responses])
    return sd, data[names.RESPONSE_OF_OBS].values.astype(np.int64)


def _prior_root(fit: _Fit, draws: slice) -> Floats:
    """Root of the prior covariance of what patients share, (D, m, m): blocks of the fixed effects and of the units."""
    n_draws, p = fit.precision[draws].shape[0], fit.beta_root.shape[0]
    out = np.zeros((n_draws, fit.n_shared, fit.n_shared))
    out[:, :p, :p] = fit.beta_root
    start = p
    for n_units, root in fit.roots:
        q = root.shape[-1]
        for _ in range(n_units):
            out[:, start : start + q, start : start + q] = root[draws]
            start += q
    return out


def _chunk(fit: _Fit, draws: slice, *, whole: bool) -> Iterator[tuple[int, Floats]]:
    """Go through the patients: log densities of their rows, or of all of them at once, in some draws."""
    precision, root = fit.precision[draws][:, fit.group], fit.patient_root[draws]
    rest = fit.rest if len(fit.rest) == 1 else fit.rest[draws]
    weighed = [_weigh(patient, precision[:, patient.rows], rest[:, patient.rows], root) for patient in fit.patients]
    moment = np.zeros((precision.shape[0], fit.n_shared, fit.n_shared))
    score = np.zeros((precision.shape[0], fit.n_shared))
    for patient, (_, WA, Wr) in zip(fit.patients, weighed, strict=True):
        moment[:, patient.columns[:, None], patient.columns] += np.einsum("ns,dnt->dst", patient.A, WA)
        score[:, patient.columns] += np.einsum("ns,dn->ds", patient.A, Wr)
    prior = _prior_root(fit, draws)
    turned = np.swapaxes(prior, 1, 2)
    inner = np.eye(fit.n_shared) + turned @ moment @ prior
    covariance = prior @ np.linalg.solve(inner, turned)
    estimate = np.einsum("dst,dt->ds", covariance, score)
    for place, (patient, (W, WA, Wr)) in enumerate(zip(fit.patients, weighed, strict=True)):
        columns = patient.columns
        error = Wr - np.einsum("dns,ds->dn", WA, estimate[:, columns])
        spread = WA @ covariance[:, columns[:, None], columns]
        if whole:
            yield place, _normal_block(W - spread @ np.swapaxes(WA, 1, 2), error)
        else:
            own = np.einsum("dnn->dn", W) - np.einsum("dns,dns->dn", spread, WA)
            yield place, 0.5 * (np.log(own) - np.log(2 * np.pi) - error**2 / own)


def _weigh(patient: _Patient, precision: Floats, rest: Floats, root: Floats) -> tuple[Floats, Floats, Floats]:
    """W, W A and W r of a patient's rows, W the inverse of their covariance given what patients share."""
    ZL = patient.Z @ root
    scaled = precision[:, :, None] * ZL
    inner = np.eye(root.shape[-1]) + np.swapaxes(ZL, 1, 2) @ scaled
    W = -scaled @ np.linalg.solve(inner, np.swapaxes(scaled, 1, 2))
    W[:, np.arange(precision.shape[1]), np.arange(precision.shape[1])] += precision
    return W, W @ patient.A, np.einsum("dnt,dt->dn", W, np.broadcast_to(rest, precision.shape))


def _normal_block(precision: Floats, error: Floats) -> Floats:
    """Log density of a block with this conditional precision Q_kk, at (Q y)_k."""
    factor = np.linalg.cholesky(precision)
    log_det = 2.0 * np.log(np.einsum("dnn->dn", factor)).sum(axis=1)
    square = (error * np.linalg.solve(precision, error[..., None])[..., 0]).sum(axis=1)
    return 0.5 * (log_det - square - error.shape[1] * np.log(2 * np.pi))

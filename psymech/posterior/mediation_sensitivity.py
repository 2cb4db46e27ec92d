"""How strong a confounder of mediator and outcome must be to take an indirect effect away."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import DataError
from psymech.posterior import tree as read
from psymech.posterior.mediation_latent import level_covariances, residual_sds
from psymech.posterior.mediation_paths import (
    MediationTree,
    Path,
    PathLevel,
    expected_product,
    of_covariances,
    read_mediation,
)
from psymech.posterior.summaries import interval_prob
from psymech.spec.model import response_label

Floats = NDArray[np.float64]
RHO = np.round(np.arange(0.0, 0.991, 0.01), 2)


def mediation_sensitivity(tree: xr.DataTree, *, ci_prob: float | None = None) -> pd.DataFrame:
    r"""Table of the residual correlation at which each indirect effect would vanish.

    The model takes the residuals of mediator and outcome to be uncorrelated at every level. If an unmeasured variable
    made them correlate by rho at a level, the slope b of that level would be

    .. math::
        b(\rho) = b^* - \frac{\rho \lambda}{\sqrt{1 - \rho^2 \lambda}}\,\frac{\tau_y}{\tau_m},\qquad
        \lambda = \frac{\tau_m^2}{\tau_m^2 + s^2}

    with b* the fitted slope, :math:`\tau_m` and :math:`\tau_y` the fitted residual SDs of mediator and outcome at that
    level, and s^2 the error variance of the observed unit mean (0 within patients and with latent means). It follows
    from
    :math:`b^* = b + \mathrm{cov}(u_m, u_y) / \mathrm{var}(\bar m \mid x)` and
    :math:`\tau_y^2 = \tilde\tau_y^2 (1 - \rho^2 \lambda)`, where the tilde marks the SD before the mediator has taken
    up its share; within patients this is the linear case of Imai, Keele & Yamamoto (2010). The path a and the
    (co)variances of random paths are taken as they are. Every draw is moved, so that uncertainty of all parts counts.

    Parameters
    ----------
    tree
        A fit of :func:`psymech.mediation`.
    ci_prob
        Probability of the central interval; ArviZ's setting (0.89) by default.

    Returns
    -------
    DataFrame
        One row an indirect effect: ``level``, ``treatment``, ``mediator``, ``outcome``, ``indirect`` (posterior mean),
        ``rho_zero`` at which the mean is zero, ``rho_interval`` at which the interval first touches zero (0 where it
        does already; NaN where no correlation up to 0.99 does it), in the direction that shrinks the effect.

    References
    ----------
    Imai, Keele & Yamamoto (2010), doi:10.1214/10-STS321. Imai, Keele & Tingley (2010), doi:10.1037/a0020761.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.mediation_sensitivity(mediated)["level"].tolist()
    ['within', 'patient', 'therapist']
    """
    model = read_mediation(tree)
    prob = interval_prob(ci_prob)
    rows: list[dict[str, Any]] = []
    for level in ("within", "patient", "therapist"):
        for x in model.treatments:
            for y in model.outcomes:
                for route in model.chains(x, y):
                    paths = model.along(level, (x, *route, y))
                    if paths is not None:
                        found = _of_route(tree, model, level, paths, prob)
                        rows.append(
                            {"level": level, "treatment": x, "mediator": " -> ".join(route), "outcome": y, **found}
                        )
    return pd.DataFrame(rows)


def confounded_slope(slope: Floats, rho: float, *, ratio: Floats, reliability: Floats) -> Floats:
    """Return what a fitted slope b* of the mediator would be without a residual correlation rho; see
    :func:`mediation_sensitivity`.

    Parameters
    ----------
    slope
        b*.
    rho
        Residual correlation of mediator and outcome.
    ratio
        Residual SD of the outcome over that of the mediator, both as fitted.
    reliability
        Of the mediator's observed mean; 1 within patients.
    """
    return slope - rho * reliability / np.sqrt(1 - rho**2 * reliability) * ratio


def _of_route(
    tree: xr.DataTree, model: MediationTree, level: PathLevel, paths: tuple[Path, ...], prob: float
) -> dict[str, float]:
    k = len(paths)
    spread = model.spread(paths) if level == "within" else model.covariance_of("", paths)
    means = [p.draws for p in paths]
    effect = expected_product(means, spread)
    others = list(range(k - 1))  # the last path is the mediator's path to the outcome
    per_b = expected_product([means[i] for i in others], spread[..., others, :][..., :, others])
    ratio, reliability = _residual_ratio(tree, model, level, paths[-1].source, paths[-1].target)
    sign = float(np.sign(per_b.mean() * effect.mean())) or 1.0
    tail = (1 - prob) / 2

    def moved(rho: float) -> Floats:
        return effect + (confounded_slope(np.zeros(()), sign * rho, ratio=ratio, reliability=reliability)) * per_b

    touches = crosses = np.nan
    start = float(np.sign(effect.mean()))
    for rho in RHO:
        draws = moved(float(rho))
        low, high = np.quantile(draws, [tail, 1 - tail])
        if np.isnan(touches) and low <= 0 <= high:
            touches = sign * float(rho) + 0.0
        if np.isnan(crosses) and np.sign(draws.mean()) != start:
            crosses = sign * float(rho) + 0.0
            break
    return {"indirect": float(effect.mean()), "rho_zero": crosses, "rho_interval": touches}


def _residual_ratio(
    tree: xr.DataTree, model: MediationTree, level: PathLevel, mediator: str, outcome: str
) -> tuple[Floats, Floats]:
    """Ratio of the residual SDs of outcome and mediator at a level, and the reliability of the mediator's mean
    there.
    """
    if model.latent and level == "within" and not of_covariances(tree):
        sd = residual_sds(tree)
        return sd[outcome] / sd[mediator], np.ones(sd[mediator].shape)
    if model.latent:
        labels, S = level_covariances(tree)[level]
        if outcome not in labels:  # one value a unit of this level: its residual is all that differs
            sd_m = _residual_sd(S, labels, mediator, [x for x in model.treatments if x in labels])
            return read.residual_sd(tree, outcome).values / sd_m, np.ones(sd_m.shape)
        sd_m = _residual_sd(S, labels, mediator, [x for x in model.treatments if x in labels])
        sd_y = _residual_sd(S, labels, outcome, [x for x in labels if x not in model.outcomes])
        return sd_y / sd_m, np.ones(sd_m.shape)
    sigma_m, sigma_y = read.residual_sd(tree, mediator).values, read.residual_sd(tree, outcome).values
    if level == "within":
        return sigma_y / sigma_m, np.ones(sigma_m.shape)
    tau_m, tau_y = _intercept_sd(tree, level, mediator), _intercept_sd(tree, level, outcome)
    if tau_y is None:
        tau_y = sigma_y  # the outcome has one value a unit of this level: its residual is all that differs
    if tau_m is None:
        raise DataError(
            f"The mediator {mediator!r} has no random intercept over {level}s; its residual there is not known."
        )
    return tau_y / tau_m, tau_m**2 / (tau_m**2 + _error_of_mean(tree, level, mediator, sigma_m))


def _residual_sd(S: Floats, labels: tuple[str, ...], target: str, given: list[str]) -> Floats:
    i, p = labels.index(target), [labels.index(x) for x in given if x != target]
    if not p:
        return np.sqrt(S[..., i, i])
    explained = np.linalg.solve(S[..., p, :][..., :, p], S[..., p, i][..., None])[..., 0]
    return np.sqrt(S[..., i, i] - np.sum(explained * S[..., p, i], axis=-1))


def _intercept_sd(tree: xr.DataTree, level: str, response: str) -> Floats | None:
    """Return the SD of a response's intercepts over the units of a level, over therapists with the clinics' part, which
    their means hold as well; None where none vary.
    """
    label, draws = response_label(response, names.INTERCEPT), read.posterior(tree)
    found = [
        read.take(draws[names.sd(each)], names.term_dim(each), label).transpose(*names.SAMPLE_DIMS).values
        for each in ((level, "clinic") if level == "therapist" else (level,))
        if each in read.levels_of(tree) and label in read.labels_of(draws, names.term_dim(each))
    ]
    return np.sqrt(np.sum(np.square(found), axis=0)) if found else None


def _error_of_mean(tree: xr.DataTree, level: str, mediator: str, sigma: Floats) -> Floats:
    """Error variance of a unit's observed mean, with the harmonic mean of the units' numbers of rows and patients."""
    rows = read.rows_of_response(tree, mediator)
    if "patient" not in read.levels_of(tree):
        return np.zeros(sigma.shape)
    patient = read.unit_of_obs(tree, "patient")[rows]
    sessions = np.bincount(patient) + _imputed_sessions(tree, mediator, int(patient.max()) + 1)
    of_patient = sigma**2 / _harmonic(sessions[sessions > 0])
    if level == "patient":
        return of_patient
    pairs = np.unique(np.column_stack([read.unit_of_obs(tree, "therapist")[rows], patient]), axis=0)
    spread = _intercept_sd(tree, "patient", mediator)
    between = np.zeros(sigma.shape) if spread is None else spread**2
    return (between + of_patient) / _harmonic(np.unique(pairs[:, 0], return_counts=True)[1])


def _imputed_sessions(tree: xr.DataTree, mediator: str, n_patients: int) -> NDArray[np.int64]:
    """Number of imputed values by patient; they count in the patients' means."""
    data = read.constants(tree, columns=False)
    if names.PATIENT_OF_MISSING not in data:
        return np.zeros(n_patients, dtype=np.int64)
    own = data[names.RESPONSE_OF_MISSING].values == read.responses_of(tree).index(mediator)
    return np.bincount(data[names.PATIENT_OF_MISSING].values[own], minlength=n_patients)


def _harmonic(counts: NDArray[np.int64]) -> float:
    return float(len(counts) / np.sum(1.0 / counts))

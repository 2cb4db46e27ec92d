"""Parameters drawn from the priors of a specification, by sampling: nothing here knows a density or a gradient."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from psymech import names
from psymech.design import Design
from psymech.errors import SpecError
from psymech.level_design import LevelDesign
from psymech.priors import ChosenPriors, draw_scale
from psymech.spec.priors import LKJ, Normal, StudentT, variable_of

Floats = NDArray[np.float64]
Values = dict[str, Floats]
Truth = Mapping[str, float]


def draw_parameters(
    design: Design, priors: ChosenPriors, rng: np.random.Generator, *, truth: Truth | None = None
) -> Values:
    r"""Draw every parameter and every random effect of a model from its prior.

    .. math:: \theta \sim p(\theta), \qquad u_l \mid \theta \sim N(0, \Omega_l)

    Parameters
    ----------
    design, priors
        Of a built model.
    rng
        Source of randomness.
    truth
        Values that are set instead of drawn, by name: ``"sd_therapist"`` (every term), ``"beta[time]"``,
        ``"corr_patient"`` (every pair that may correlate).

    Returns
    -------
    dict
        By the names of a fitted tree, shapes as there without chain and draw.

    Raises
    ------
    SpecError
        `truth` names no parameter of the model, or a value that it cannot take.
    """
    given = dict(truth or {})
    values: Values = {}
    values[names.BETA] = _fixed_effects(design, priors, rng, given)
    if priors.sigma:
        sigma = np.array([draw_scale(p, rng, 1)[0] for p in priors.sigma])
        _put(sigma, names.SIGMA, design.sd_labels, given, low=0.0)
        values[names.SIGMA] = sigma if len(sigma) > 1 else sigma[0]
    if priors.phi is not None:
        values[names.PHI] = _one(2 * rng.beta(priors.phi.a, priors.phi.a) - 1, names.PHI, given)
    if priors.nu is not None:
        values[names.NU] = _one(rng.gamma(priors.nu.shape, 1 / priors.nu.rate), names.NU, given)
    if priors.cutpoints is not None:
        n = len(design.categories) - 1
        values[names.CUTPOINTS] = np.sort(rng.normal(priors.cutpoints.mean, priors.cutpoints.sd, n))
    if priors.residual_corr is not None:
        q = len(design.responses)
        values[names.RESIDUAL_CORR] = _correlation(q, priors.residual_corr, None, rng, names.RESIDUAL_CORR, given)
    for level in design.levels:
        values |= _level(level, priors, rng, given)
    if priors.sd_log_sigma is not None:
        therapists = design.level("therapist")
        assert therapists is not None
        sd = _one(draw_scale(priors.sd_log_sigma, rng, 1)[0], names.SD_LOG_SIGMA, given)
        values[names.SD_LOG_SIGMA] = sd
        z = rng.normal(size=therapists.n_units)
        if priors.corr_log_sigma is not None:
            a = priors.corr_log_sigma.a
            corr = _one(2 * rng.beta(a, a) - 1, names.CORR_LOG_SIGMA, given)
            values[names.CORR_LOG_SIGMA] = corr
            first = values[names.effect("therapist")][:, 0] / values[names.sd("therapist")][0]
            z = corr * first + np.sqrt(1 - corr**2) * z
        values[names.LOG_SIGMA] = np.log(values[names.SIGMA]) + sd * z
    if given:
        raise SpecError(
            f"truth: {next(iter(given))!r} names no parameter of this model. Its parameters: {', '.join(values)}, or "
            "one entry such as 'beta[time]'."
        )
    return values


def _fixed_effects(design: Design, priors: ChosenPriors, rng: np.random.Generator, given: dict[str, float]) -> Floats:
    beta = np.array([_location(p, rng) for p in priors.beta])
    fixed = np.full(beta.size, np.nan)
    _put(fixed, names.BETA, design.terms, given)
    beta = np.where(np.isnan(fixed), beta, fixed)
    for j, term in enumerate(design.term_specs):
        if term.role == "intercept" and np.isnan(fixed[j]):
            # The prior of an intercept is about the average row of its response.
            others = design.term_response == design.term_response[j]
            others[j] = False
            beta[j] -= float(beta[others] @ priors.center[others])
    return beta


def _location(prior: Normal | StudentT, rng: np.random.Generator) -> float:
    standard = rng.normal() if isinstance(prior, Normal) else rng.standard_t(prior.nu)
    return prior.mean + prior.sd * standard


def _level(level: LevelDesign, priors: ChosenPriors, rng: np.random.Generator, given: dict[str, float]) -> Values:
    name, q = level.level, len(level.terms)
    sd = np.array([draw_scale(p, rng, 1)[0] for p in priors.sd[name]])
    _put(sd, names.sd(name), level.terms, given, low=0.0)
    corr = np.eye(q)
    if name in priors.corr:
        corr = _correlation(q, priors.corr[name], level.zero, rng, names.corr(name), given)
    root = sd[:, None] * np.linalg.cholesky(corr)
    return {
        names.sd(name): sd,
        names.corr(name): corr,
        names.effect(name): rng.normal(size=(level.n_units, q)) @ root.T,
    }


def _correlation(
    q: int,
    prior: LKJ,
    zero: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    key: str,
    given: dict[str, float],
) -> Floats:
    """Draw a correlation matrix from its C-vine: partial correlations 2 Beta(a, a) - 1, turned into correlations one
    conditioning variable at a time (Lewandowski, Kurowicka & Joe 2009, doi:10.1016/j.jmva.2009.04.008).
    """
    if key in given:
        value = given.pop(key)
        free = np.ones((q, q), dtype=bool) if zero is None else ~(zero | zero.T)
        corr = np.where(free, value, 0.0)
        np.fill_diagonal(corr, 1.0)
        if np.linalg.eigvalsh(corr).min() <= 0:
            raise SpecError(f"truth: {key!r} = {value:g} for every pair makes no correlation matrix.")
        return corr
    partial = np.zeros((q, q))
    for j in range(q):
        for i in range(j + 1, q):
            if zero is None or not zero[i, j]:
                a = prior.eta + (q - 2 - j) / 2
                partial[i, j] = 2 * rng.beta(a, a) - 1
    corr = np.eye(q)
    for i in range(q):
        for k in range(i):
            r = partial[i, k]
            for j in reversed(range(k)):
                r = r * np.sqrt((1 - partial[i, j] ** 2) * (1 - partial[k, j] ** 2)) + partial[i, j] * partial[k, j]
            corr[i, k] = corr[k, i] = r
    return corr


def _put(
    values: Floats, variable: str, labels: Sequence[str], given: dict[str, float], *, low: float = -np.inf
) -> None:
    """Overwrite entries that `given` sets, and take them out of it; a key with an entry wins."""
    for key in sorted(given, key=len):
        if variable_of(key) != variable:
            continue
        value = float(given.pop(key))
        if not np.isfinite(value) or value < low:
            raise SpecError(f"truth: {key!r} must be a finite number{'' if low else ' from 0 on'}, found {value!r}.")
        if key == variable:
            values[:] = value
        elif (entry := key[len(variable) + 1 : -1]) in labels:
            values[list(labels).index(entry)] = value
        else:
            raise SpecError(f"truth: {key!r} names no term. Expected one of {', '.join(labels)}.")


def _one(drawn: float, variable: str, given: dict[str, float]) -> Floats:
    return np.asarray(given.pop(variable, drawn), dtype=float)

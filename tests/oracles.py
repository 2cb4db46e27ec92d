"""Log densities of the explicit model as a textbook states them: NumPy and SciPy, nothing shared with the graphs.

A point maps the names of the model's unconstrained values to arrays, as ``model.initial_point()`` returns it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special, stats

from psymech.design import Design
from psymech.level_design import LevelDesign
from psymech.priors import ChosenPriors
from psymech.spec.priors import Exponential, HalfNormal, HalfStudentT, Normal, Prior, StudentT

Floats = NDArray[np.float64]
Point = Mapping[str, NDArray]


@dataclass(frozen=True, slots=True)
class Parts:
    """The three factors of the joint density, logarithms: hyperparameters, effects given them, rows given both."""

    theta: float
    effects: float
    rows: float

    @property
    def joint(self) -> float:
        return self.theta + self.effects + self.rows


@dataclass(frozen=True, slots=True)
class Values:
    """Constrained values at a point."""

    beta: Floats
    factors: tuple[Floats, ...]
    effects: tuple[Floats, ...]
    sigma: Floats
    phi: float
    nu: float
    cutpoints: Floats


def fixed_log_pdf(prior: Normal | StudentT, x: float) -> float:
    if isinstance(prior, Normal):
        return float(stats.norm.logpdf(x, prior.mean, prior.sd))
    return float(stats.t.logpdf(x, prior.nu, prior.mean, prior.sd))


def scale_log_pdf(prior: Prior, x: float) -> float:
    """Density of a standard deviation x > 0."""
    match prior:
        case HalfNormal(sd):
            return float(stats.halfnorm.logpdf(x, scale=sd))
        case HalfStudentT(nu, sd):
            return float(np.log(2) + stats.t.logpdf(x, nu, scale=sd))
        case Exponential(mean):
            return float(stats.expon.logpdf(x, scale=mean))
    raise AssertionError(prior)


def correlation_matrix(partial: Floats, q: int) -> Floats:
    """Correlation matrix of the partial correlations of a C-vine, by the recursion of Lewandowski et al. (2009)."""
    P = np.zeros((q, q))
    rows, columns = np.tril_indices(q, -1)
    P[columns, rows] = partial
    R = np.eye(q)
    for k in range(q):
        for i in range(k + 1, q):
            r = P[k, i]
            for j in reversed(range(k)):
                r = r * np.sqrt((1 - P[j, i] ** 2) * (1 - P[j, k] ** 2)) + P[j, i] * P[j, k]
            R[k, i] = R[i, k] = r
    return R


def lkj_log_normaliser(q: int, eta: float) -> float:
    """Logarithm of the integral of det(R)^(eta - 1) over correlation matrices (Lewandowski et al. 2009, eq. 16)."""
    total = 0.0
    for k in range(1, q):
        b = eta + (q - k - 1) / 2
        total += (2 * eta - 2 + q - k) * (q - k) * np.log(2) + (q - k) * special.betaln(b, b)
    return total


def by_family(point: Point, name: str, priors: tuple[Prior, ...], suffix: str = "") -> Floats:
    """Gather a vector that the model keeps in one variable a prior family."""
    families = list(dict.fromkeys(type(p) for p in priors))
    if len(families) == 1:
        return np.asarray(point[name + suffix], dtype=float)
    out = np.empty(len(priors))
    for family in families:
        out[[type(p) is family for p in priors]] = point[f"{name}_{family.__name__}{suffix}"]
    return out


def logit_beta(a: float, logit: float) -> tuple[float, float]:
    """Value of 2 Beta(a, a) - 1 at a logit, and the log density of the logit."""
    b = special.expit(logit)
    return 2 * b - 1, float(stats.beta.logpdf(b, a, a) + np.log(b) + np.log1p(-b))


def level_values(
    point: Point, level: LevelDesign, priors: ChosenPriors, centred: bool
) -> tuple[Floats, Floats, float, float]:
    """Factor L, effects u, log density of the covariance's parameters, and of the effects given them."""
    name, q = level.level, len(level.terms)
    chosen = priors.sd[name]
    if centred:
        scales = np.exp(by_family(point, f"scale_{name}", chosen, "_log__"))
        theta = sum(scale_log_pdf(p, s) + np.log(s) for p, s in zip(chosen, scales, strict=True))
    else:
        scales = by_family(point, f"scale_{name}", chosen)
        theta = sum(scale_log_pdf(p, abs(s)) - np.log(2) for p, s in zip(chosen, scales, strict=True))
    R = np.eye(q)
    if name in priors.corr:
        logits = np.asarray(point[f"partial_{name}_logodds__"], dtype=float)
        _, columns = np.tril_indices(q, -1)
        drawn = [logit_beta(priors.corr[name].eta + (q - 2 - j) / 2, x) for j, x in zip(columns, logits, strict=True)]
        R = correlation_matrix(np.array([value for value, _ in drawn]), q)
        theta += sum(density for _, density in drawn)
    L = np.diag(scales) @ np.linalg.cholesky(R)
    if centred:
        u = np.asarray(point[f"u_{name}"], dtype=float)
        effects = float(np.sum(stats.multivariate_normal(np.zeros(q), L @ L.T, allow_singular=False).logpdf(u)))
        return L, u, float(theta), effects
    z = np.asarray(point[f"z_{name}"], dtype=float)
    return L, z @ L.T, float(theta), float(stats.norm.logpdf(z).sum())


def explicit_log_joint(
    design: Design, priors: ChosenPriors, point: Point, *, centred: Mapping[str, bool]
) -> tuple[Parts, Values]:
    """Log density of the unconstrained values and the rows, Jacobians included."""
    standard = by_family(point, "fixed", priors.beta)
    free = np.array([p.mean + p.sd * s for p, s in zip(priors.beta, standard, strict=True)])
    theta = sum(
        fixed_log_pdf(p, b) + np.log(p.sd) for p, b in zip(priors.beta, free, strict=True)
    )  # the model samples (b - mean) / sd
    beta = free.copy()
    for j, term in enumerate(design.term_specs):
        if term.role == "intercept":  # its prior is about the average row
            others = [i for i in range(len(free)) if i != j]
            beta[j] = free[j] - sum(free[i] * design.X[:, i].mean() for i in others)

    eta = design.X @ beta if design.terms else np.zeros(design.n_obs)
    factors, effects, effects_density = [], [], 0.0
    for level in design.levels:
        L, u, d_theta, d_effects = level_values(point, level, priors, centred[level.level])
        theta += d_theta
        effects_density += d_effects
        eta = eta + np.sum(level.Z * u[level.code], axis=1)
        factors.append(L)
        effects.append(u)

    sigma, phi, nu, cut = np.array(np.nan), 0.0, np.nan, np.zeros(0)
    if priors.sigma:
        sigma = np.exp(np.asarray(point["sigma_log__"], dtype=float))
        theta += scale_log_pdf(priors.sigma[0], float(sigma)) + float(np.log(sigma))
    if priors.phi is not None:
        phi, density = logit_beta(priors.phi.a, float(point["phi_half_logodds__"]))
        theta += density
    if priors.nu is not None:
        nu = float(np.exp(point["nu_log__"]))
        theta += float(stats.gamma.logpdf(nu, priors.nu.shape, scale=1 / priors.nu.rate) + np.log(nu))
    if priors.cutpoints is not None:
        raw = np.asarray(point["cutpoints_ordered__"], dtype=float)
        cut = np.cumsum([raw[0], *np.exp(raw[1:])])
        sorted_normals = stats.norm.logpdf(cut, priors.cutpoints.mean, priors.cutpoints.sd).sum()
        theta += float(sorted_normals + special.gammaln(len(cut) + 1) + raw[1:].sum())
    rows = row_log_density(design, eta, sigma=sigma, phi=phi, nu=nu, cut=cut)
    values = Values(beta, tuple(factors), tuple(effects), sigma, phi, nu, cut)
    return Parts(float(theta), effects_density, rows), values


def row_log_density(design: Design, eta: Floats, *, sigma: Floats, phi: float, nu: float, cut: Floats) -> float:
    """Log density of the rows given the linear predictor."""
    y = design.y
    match design.family:
        case "gaussian":
            return dense_log_density(y, eta, residual_covariance(design, float(sigma), phi))
        case "student":
            return float(stats.t.logpdf(y, nu, eta, float(sigma)).sum())
        case "bernoulli":
            return float(stats.bernoulli.logpmf(y, special.expit(eta)).sum())
        case "ordinal":
            edges = np.concatenate([[-np.inf], cut, [np.inf]])
            k = y.astype(int)
            return float(np.log(special.expit(edges[k + 1] - eta) - special.expit(edges[k] - eta)).sum())


def residual_covariance(design: Design, sigma: float, phi: float) -> Floats:
    """Covariance of the residuals from its definition: sigma^2 phi^|s - t| within a patient, over session numbers."""
    patient = design.levels[0].labels[design.levels[0].code]
    assert design.levels[0].level == "patient"
    R = np.zeros((design.n_obs, design.n_obs))
    for i in range(design.n_obs):
        for j in range(design.n_obs):
            if i == j:
                R[i, j] = sigma**2
            elif design.residual == "ar1" and patient[i] == patient[j]:
                R[i, j] = sigma**2 * phi ** int(abs(design.session[i] - design.session[j]))
    return R


def dense_log_density(y: Floats, mean: Floats, covariance: Floats) -> float:
    """Log density of a multivariate normal, the whole matrix at once."""
    lower = np.linalg.cholesky(covariance)
    standard = linalg.solve_triangular(lower, y - mean, lower=True)
    return float(-0.5 * standard @ standard - np.log(np.diag(lower)).sum() - 0.5 * len(y) * np.log(2 * np.pi))


def stacked_effects(design: Design, values: Values, *, standardised: bool) -> tuple[Floats, Floats]:
    """Matrix A with eta = X beta + A w, w all random effects stacked (levels, units, terms), and w's prior covariance.

    With `standardised` the effects are the independent standard normals z, u = L z.
    """
    columns, priors = [], []
    for level, L in zip(design.levels, values.factors, strict=True):
        q = len(level.terms)
        A = np.zeros((design.n_obs, level.n_units, q))
        A[np.arange(design.n_obs), level.code] = level.Z @ L if standardised else level.Z
        columns.append(A.reshape(design.n_obs, -1))
        priors.append(np.kron(np.eye(level.n_units), np.eye(q) if standardised else L @ L.T))
    return np.hstack(columns), linalg.block_diag(*priors)


def dense_marginal(design: Design, values: Values) -> float:
    """Log p(y | theta): the random effects integrated out, one multivariate normal of all rows."""
    A, prior = stacked_effects(design, values, standardised=False)
    R = residual_covariance(design, float(values.sigma), values.phi)
    return dense_log_density(design.y, design.X @ values.beta, A @ prior @ A.T + R)


def dense_conditional(design: Design, values: Values, w: Floats, *, standardised: bool) -> float:
    """Log p(w | y, theta) of the stacked effects, by conditioning the joint normal of (w, y)."""
    A, prior = stacked_effects(design, values, standardised=standardised)
    R = residual_covariance(design, float(values.sigma), values.phi)
    V = A @ prior @ A.T + R
    gain = prior @ A.T @ np.linalg.inv(V)
    mean = gain @ (design.y - design.X @ values.beta)
    covariance = prior - gain @ A @ prior
    return dense_log_density(w, mean, (covariance + covariance.T) / 2)


def central_differences(model: Any, point: dict[str, np.ndarray], *, step: float, mode: str) -> np.ndarray:
    """Return the gradient of a PyMC model's density at a point by central differences, in `compile_dlogp`'s order."""
    logp, slopes = model.compile_logp(mode=mode), []
    for variable in model.continuous_value_vars:
        name = str(variable.name)
        for index in np.ndindex(np.shape(point[name])):
            ends = []
            for sign in (1, -1):
                moved = np.array(point[name], dtype=float)
                moved[index] += sign * step
                ends.append(float(logp({**point, name: moved})))
            slopes.append((ends[0] - ends[1]) / (2 * step))
    return np.array(slopes)


def dense_weights(level: LevelDesign) -> np.ndarray:
    """What share of each row belongs to each unit, (n_obs, n_units)."""
    W = np.zeros((len(level.code), level.n_units))
    if level.members is None:
        W[np.arange(len(W)), level.code] = 1.0
    else:
        np.add.at(W, (np.arange(len(W))[:, None], level.members.code), level.members.weight)
    return W

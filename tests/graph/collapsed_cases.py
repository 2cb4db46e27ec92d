"""Designs for the collapsed engine, its parameters as a textbook reads them, and the dense density of all rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import psymech as psm
from psymech.design import Design, make_design
from psymech.gaussian import target as target_module
from psymech.gaussian.loglik import value_and_grad
from psymech.gaussian.target import Target
from psymech.graph.crossing import Crossing, make_crossing
from psymech.inference.collapsed import design_target
from psymech.models.common import intercept
from psymech.priors import ChosenPriors, choose_priors
from psymech.spec.model import Factor, ModelSpec, RandomBlock, ResidualKind, Response, Term
from psymech.spec.priors import Exponential, Prior
from tests.graph.explicit_designs import LEVELS, SCALE_PRIORS, SLOPES, ragged_study, session_data
from tests.oracles import correlation_matrix, dense_log_density, logit_beta, scale_log_pdf

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CollapsedCase:
    """A design with its priors, cross-products and compiled log posterior (which compiles when first called)."""

    design: Design
    priors: ChosenPriors
    crossing: Crossing
    target: Target

    def __repr__(self) -> str:
        levels = {level.level: level.terms for level in self.design.levels}
        return f"CollapsedCase({levels}, {self.design.residual}, {self.priors})"

    def draw_point(self, rng: np.random.Generator) -> Floats:
        """Scales of both signs around half their spread, partial correlations and logits around zero."""
        x, k = rng.normal(size=self.target.n), 0
        for level, q, correlated in zip(self.design.levels, self.target.q, self.target.correlated, strict=True):
            spread = [scale_spread(p) for p in self.priors.sd[level.level]]
            x[k : k + q] *= np.array(spread)
            k += q + (q * (q - 1) // 2 if correlated else 0)
        sigma = slice(k, k + self.target.n_sigma)
        if not self.target.correlated_residuals:
            x[sigma] = np.log(self.design.y.std()) + 0.3 * x[sigma]
        return x


@dataclass(frozen=True, slots=True)
class Values:
    """What a point of the unconstrained space means."""

    factors: tuple[Floats, ...]
    sigma: Floats
    phi: float
    prior: float
    residual_corr: Floats | None = None


def scale_spread(prior: Prior) -> float:
    return prior.mean if isinstance(prior, Exponential) else prior.sd  # pyright: ignore[reportAttributeAccessIssue]


def make_case(spec: ModelSpec, data: psm.SessionData) -> CollapsedCase:
    """Build past the checks that refuse tiny designs."""
    design = make_design(spec, data)
    priors = choose_priors(spec, design)
    crossing = make_crossing(design, priors)
    return CollapsedCase(design, priors, crossing, design_target(design, priors, crossing))


def read_point(case: CollapsedCase, x: Floats) -> Values:
    """Read a point, with the log density of the priors of its values, Jacobians included."""
    k, total, factors = 0, 0.0, []
    for level in case.design.levels:
        q, lkj = len(level.terms), case.priors.corr.get(level.level)
        density, scales, R = read_covariance(x[k:], case.priors.sd[level.level], None if lkj is None else lkj.eta)
        k += q + (0 if lkj is None else q * (q - 1) // 2)
        total += density
        factors.append(np.diag(scales) @ np.linalg.cholesky(R))
    n = len(case.priors.sigma)
    if case.priors.residual_corr is not None:
        density, scales, R = read_covariance(x[k:], case.priors.sigma, case.priors.residual_corr.eta)
        signs = np.sign(scales)
        return Values(tuple(factors), np.abs(scales), 0.0, float(total + density), R * np.outer(signs, signs))
    sigma = np.exp(x[k : k + n])
    total += sum(scale_log_pdf(p, s) + np.log(s) for p, s in zip(case.priors.sigma, sigma, strict=True))
    phi = 0.0
    if case.priors.phi is not None:
        phi, density = logit_beta(case.priors.phi.a, x[k + n])
        total += density
    return Values(tuple(factors), sigma, phi, float(total))


def read_covariance(x: Floats, priors: Sequence[Prior], eta: float | None) -> tuple[float, Floats, Floats]:
    """Log prior density, signed scales and correlations of a block of scales followed by partial correlations."""
    q = len(priors)
    scales = x[:q]
    # The density of the signed scale is half that of the SD on either side of zero.
    density = sum(scale_log_pdf(p, abs(s)) - np.log(2) for p, s in zip(priors, scales, strict=True))
    if eta is None or q == 1:
        return float(density), scales, np.eye(q)
    columns = np.tril_indices(q, -1)[1]
    drawn = [logit_beta(a, y) for a, y in zip(eta + (q - 2 - columns) / 2, x[q : q + len(columns)], strict=True)]
    R = correlation_matrix(np.array([value for value, _ in drawn]), q)
    return float(density + sum(each for _, each in drawn)), scales, R


def dense_covariance(design: Design, values: Values) -> Floats:
    """Covariance of all rows given the fixed effects, from its definition."""
    V = residual_covariance(design, values)
    for level, L in zip(design.levels, values.factors, strict=True):
        same = level.code[:, None] == level.code[None, :]
        V += same * (level.Z @ (L @ L.T) @ level.Z.T)
    return V


def residual_covariance(design: Design, values: Values) -> Floats:
    """Residuals of one patient's response correlate phi^|s - t|, or those of one session, others not."""
    sd, patient = values.sigma[design.response], design.levels[0].code
    if values.residual_corr is not None:
        together = design.row[:, None] == design.row[None, :]
        return together * np.outer(sd, sd) * values.residual_corr[np.ix_(design.response, design.response)]
    same = (patient[:, None] == patient[None, :]) & (design.response[:, None] == design.response[None, :])
    apart = np.abs(design.session[:, None] - design.session[None, :]).astype(int)
    return same * np.outer(sd, sd) * np.where(apart == 0, 1.0, np.float64(values.phi) ** apart)


def beta_moments(case: CollapsedCase) -> tuple[Floats, Floats]:
    """Prior mean and covariance of the fixed effects: independent normals, the intercept's at the average row."""
    design, p = case.design, len(case.design.terms)
    A = np.eye(p)
    for j, term in enumerate(design.term_specs):
        if term.role == "intercept":
            mine = design.term_response == design.term_response[j]
            rows = design.response == design.term_response[j]
            A[j] -= np.where(mine & (np.arange(p) != j), design.X[rows].mean(axis=0), 0.0)
    mean = np.array([prior.mean for prior in case.priors.beta])
    sd = np.array([prior.sd for prior in case.priors.beta])
    return A @ mean, (A * sd**2) @ A.T


def dense_log_posterior(case: CollapsedCase, x: Floats, y: Floats | None = None) -> float:
    """Priors by hand plus one multivariate normal of all rows, fixed and random effects integrated out."""
    values = read_point(case, x)
    mean, covariance = beta_moments(case)
    X = case.design.X
    rows = dense_covariance(case.design, values) + X @ covariance @ X.T
    return values.prior + dense_log_density(case.design.y if y is None else y, X @ mean, rows)


def reference_value_and_grad(case: CollapsedCase, x: Floats) -> tuple[float, Floats]:
    """The target's own code around the kernel, with the NumPy engine in the kernel's place: no shape is compiled."""
    t, cross = case.target, case.crossing.cross

    def kernel(S, parents, maps, n_obs, coefs, factors, log_det, mean, precision):
        value, gradient = value_and_grad(cross, coefs, factors, log_det, prior=(mean, precision))
        return value, gradient.coefs, tuple(np.ascontiguousarray(np.tril(f)) for f in gradient.factors), None

    build = (target_module._one, target_module._two, target_module._three)[cross.n_levels - 1]
    function = build(kernel, t.q, t.correlated, cross.n_coef, t.residual)
    gradient = np.zeros(t.n)
    return float(function(t.sizes, np.ascontiguousarray(x), gradient, *t.arguments)), gradient


def central_differences(function, x: Floats, *, step: float) -> Floats:
    """Derivatives of a function of a vector."""
    out = np.empty(x.size)
    for i in range(x.size):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[i] += sign * step
            ends.append(function(moved))
        out[i] = (ends[0] - ends[1]) / (2 * step)
    return out


def graph_point(case: CollapsedCase, x: Floats) -> dict[str, NDArray]:
    """The same point under the names of the PyMC model's unconstrained variables."""
    point: dict[str, NDArray] = {}
    k = 0
    for level in case.design.levels:
        name, chosen = level.level, case.priors.sd[level.level]
        families = list(dict.fromkeys(type(p) for p in chosen))
        for family in families:
            mine = [i for i, p in enumerate(chosen) if type(p) is family]
            key = f"scale_{name}" if len(families) == 1 else f"scale_{name}_{family.__name__}"
            point[key] = x[k : k + len(chosen)][mine]
        k += len(chosen)
        if name in case.priors.corr:
            n = len(chosen) * (len(chosen) - 1) // 2
            point[f"partial_{name}_logodds__"] = x[k : k + n]
            k += n
    n = len(case.priors.sigma)
    point["sigma_log__"] = x[k] if n == 1 else x[k : k + n]
    point["sigma_log__"] = np.asarray(point["sigma_log__"])
    if case.priors.phi is not None:
        point["phi_half_logodds__"] = np.asarray(x[k + n])
    return point


def graph_gradient(case: CollapsedCase, gradient: Mapping[str, NDArray]) -> Floats:
    """Inverse of :func:`graph_point` for arrays by name."""
    index = graph_point(case, np.arange(case.target.n, dtype=float))
    out = np.empty(case.target.n)
    for name, places in index.items():
        out[np.asarray(places, dtype=int)] = gradient[name]
    return out


def two_responses(
    *, therapists: bool = True, priors: dict[str, Prior] | None = None, residual: ResidualKind = "iid"
) -> ModelSpec:
    """Outcome and predictor as two responses whose intercepts and slopes correlate over patients."""

    def terms() -> tuple[Term, ...]:
        return (intercept(), Term("x", (Factor("x"),), "covariate"))

    blocks = (
        RandomBlock("patient", ("y~Intercept", "w~Intercept", "y~x")),
        RandomBlock("therapist", ("y~Intercept", "w~Intercept"), correlated=False),
    )
    return ModelSpec(
        kind="process",
        responses=(Response("y", terms()), Response("w", terms())),
        random=blocks if therapists else blocks[:1],
        residual=residual,
        priors=tuple(sorted((priors or {}).items())),
    )


@st.composite
def collapsed_cases(draw: st.DrawFn) -> CollapsedCase:
    """Gaussian models of one to three levels, 1 to 4 random terms a level, priors of every family, AR(1) with gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_levels = draw(st.integers(1, 3))
    levels = LEVELS[:n_levels]
    overrides: dict[str, Prior | None] = {
        **{f"sd_{level}": draw(SCALE_PRIORS) for level in levels},
        "sd_patient[Intercept]": draw(SCALE_PRIORS),
        "sigma": draw(SCALE_PRIORS),
        "beta[x]": draw(st.sampled_from([None, psm.Normal(0.5, 2.0)])),
        "corr_patient": draw(st.sampled_from([None, psm.LKJ(1.0), psm.LKJ(3.5)])),
        "phi": draw(st.sampled_from([None, psm.SymmetricBeta(1.0)])),
    }
    given = {key: prior for key, prior in overrides.items() if prior is not None}
    frame = ragged_study(rng, n_levels)
    if draw(st.booleans()):
        spec = psm.process(
            "y",
            covariates=["x", "w"],
            decompose="none",
            slopes={level: SLOPES[: draw(st.integers(0, 3))] for level in levels},
            correlated={level: draw(st.booleans()) for level in levels},
            residual=draw(st.sampled_from(["iid", "ar1"])),
            priors=given,
        )
    else:
        kept = {
            key: prior for key, prior in given.items() if key in ("sigma", "corr_patient", "sd_patient", "sd_therapist")
        }
        if n_levels == 1:
            kept.pop("sd_therapist", None)
        residual = draw(st.sampled_from(["iid", "unstructured"]))
        spec = two_responses(therapists=n_levels > 1, priors=kept, residual=residual)
    return make_case(spec, session_data(frame, n_levels))

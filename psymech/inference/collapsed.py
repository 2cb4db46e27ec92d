"""Sampling the collapsed model: variance parameters by NUTS, then fixed and random effects drawn exactly."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from psymech import names
from psymech.design import Design
from psymech.gaussian.patterns import ByPattern
from psymech.gaussian.recover_numba import recover
from psymech.gaussian.residual import AR1
from psymech.gaussian.target import LAPLACE, NORMAL, STUDENT, ScalePriors, Target, make_target
from psymech.graph.build import BuiltModel
from psymech.graph.crossing import Crossing, make_crossing
from psymech.inference.chains import Drawn, Keeper, RunOptions
from psymech.inference.run import Sampler, run_sampler, sample_nutpie
from psymech.inference.stages import Stages
from psymech.priors import ChosenPriors
from psymech.spec.priors import Exponential, HalfNormal, HalfStudentT, Prior

Arrays = dict[str, NDArray]
_CHUNK_BYTES = 2**28


def sample_collapsed(
    built: BuiltModel, sampler: Sampler, options: RunOptions, stages: Stages, keeper: Keeper | None = None
) -> Drawn:
    """Return the draws of every variable of the tree, and the sampler's statistics."""
    design, priors = built.design, built.priors
    crossing = make_crossing(design, priors)
    if sampler == "nutpie" and crossing.beta_prior is not None:
        drawn = _sample_direct(design, priors, crossing, options, stages, keeper)
    else:
        if sampler in ("numpyro", "blackjax"):
            import psymech.graph.ops_jax  # noqa: F401 - registers the operators with JAX
        keep = [n for level in design.levels for n in (names.sd(level.level), names.corr(level.level))]
        keep += [names.SIGMA, names.RESIDUAL_CORR, names.PHI, names.BETA]
        drawn = run_sampler(built.model, sampler, options, stages, keep, keeper)
    with stages.stage("recover", "drawing fixed and random effects given the variance parameters"):
        return recovered(design, priors, crossing, options, drawn)


def recovered(design: Design, priors: ChosenPriors, crossing: Crossing, options: RunOptions, drawn: Drawn) -> Drawn:
    """Return the draws of every variable from those that a chain keeps."""
    from psymech.inference.direct import POINT

    values = drawn.values
    if POINT in values:
        values = unpack(design, design_target(design, priors, crossing), values[POINT])
    effects = recover_effects(design, crossing, values, seed=options.seed, keep=options.effects)
    return replace(drawn, values=values | effects)


def _sample_direct(
    design: Design,
    priors: ChosenPriors,
    crossing: Crossing,
    options: RunOptions,
    stages: Stages,
    keeper: Keeper | None,
) -> Drawn:
    from psymech.inference.direct import compile_target

    with stages.stage("compile", "compiling the log posterior (a few seconds the first time, then kept)"):
        target = design_target(design, priors, crossing)
        compiled = compile_target(target, starting_points(target, design, priors))
    return sample_nutpie(compiled, options, stages, keeper)


def design_target(design: Design, priors: ChosenPriors, crossing: Crossing) -> Target:
    """Return the compiled log posterior of a design whose fixed effects have normal priors."""
    assert crossing.beta_prior is not None
    return make_target(
        crossing.cross,
        crossing.residual,
        scales=[scale_priors(priors.sd[level.level]) for level in design.levels],
        eta=[priors.corr[lv.level].eta if lv.level in priors.corr else None for lv in design.levels],
        sigma=scale_priors(priors.sigma),
        phi_a=priors.phi.a if priors.phi is not None else 1.0,
        beta_prior=crossing.beta_prior,
        zero=[level.zero for level in design.levels],
        residual_eta=None if priors.residual_corr is None else priors.residual_corr.eta,
    )


def scale_priors(priors: Sequence[Prior]) -> ScalePriors:
    """Return the priors of scales as arrays."""
    rows = [_scale_row(p) for p in priors]
    family, spread, nu = (np.array(column) for column in zip(*rows, strict=True))
    return ScalePriors(family.astype(np.int64), spread.astype(float), nu.astype(float))


def _scale_row(prior: Prior) -> tuple[int, float, float]:
    match prior:
        case HalfNormal(sd):
            return NORMAL, sd, 1.0
        case HalfStudentT(nu, sd):
            return STUDENT, sd, nu
        case Exponential(mean):
            return LAPLACE, mean, 1.0
    raise AssertionError(prior)


def starting_points(target: Target, design: Design, priors: ChosenPriors) -> Callable[[int], NDArray[np.float64]]:
    """Return a function from a seed to a starting point, dispersed around moderate scales and no correlation."""
    center, spread = [], []
    for level, size, free in zip(design.levels, target.q, target.free, strict=True):
        center += [np.log(_scale_row(p)[1] / 2) for p in priors.sd[level.level]]
        spread += [0.5] * size
        center += [0.0] * int(free.sum())
        spread += [0.5] * int(free.sum())
    for r in range(target.n_sigma):
        spread_of_rows = design.y[design.sd_code == r].std() or design.y.std()  # one row alone has none
        center.append(float(np.log(spread_of_rows * 0.7)))
        spread.append(0.2)
    if target.correlated_residuals:
        center += [0.0] * (target.n - len(center))
        spread += [0.5] * (target.n - len(spread))
    if target.autoregressive:
        center.append(0.0)
        spread.append(0.5)
    mean, scale, is_scale = np.array(center), np.array(spread), _scale_mask(target)

    def start(seed: int) -> NDArray[np.float64]:
        x = mean + scale * np.random.default_rng(seed).uniform(-1, 1, target.n)
        return np.where(is_scale, np.exp(x), x)

    return start


def _scale_mask(target: Target) -> NDArray[np.bool_]:
    mask = []
    for size, free in zip(target.q, target.free, strict=True):
        mask += [True] * size + [False] * int(free.sum())
    if target.correlated_residuals:
        mask += [True] * target.n_sigma
    return np.array(mask + [False] * (target.n - len(mask)))


def unpack(design: Design, target: Target, points: NDArray[np.float64]) -> Arrays:
    """Turn unconstrained points (chain, draw, n) into SDs, correlations, residual SDs and the autocorrelation."""
    values: Arrays = {}
    k = 0
    for level, q, free in zip(design.levels, target.q, target.free, strict=True):
        sd, corr = _sd_and_corr(points[..., k : k + q], points[..., k + q :], free)
        values[names.sd(level.level)], values[names.corr(level.level)] = sd, corr
        k += q + int(free.sum())
    n = target.n_sigma
    if target.correlated_residuals:
        free = np.ones(n * (n - 1) // 2, dtype=bool)
        sd, corr = _sd_and_corr(points[..., k : k + n], points[..., k + n :], free)
        return values | {names.SIGMA: sd, names.RESIDUAL_CORR: corr}
    sigma = np.exp(points[..., k : k + n])
    values[names.SIGMA] = sigma[..., 0] if n == 1 else sigma
    if target.autoregressive:
        values[names.PHI] = np.tanh(0.5 * points[..., k + n])
    return values


def _sd_and_corr(scales: NDArray, partial: NDArray, free: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Turn signed scales and the free partial correlations, on the log-odds scale, into SDs and correlations."""
    q = scales.shape[-1]
    factor = np.zeros((*scales.shape[:-1], q, q))
    rest = np.ones(scales.shape)
    k = 0
    pairs = zip(*np.tril_indices(q, -1), strict=True) if free.size else ()
    for (i, j), is_free in zip(pairs, free, strict=True):
        if is_free:
            factor[..., i, j] = np.tanh(0.5 * partial[..., k]) * np.sqrt(rest[..., i])
            rest[..., i] *= 1.0 / np.cosh(0.5 * partial[..., k]) ** 2
            k += 1
    factor[..., np.arange(q), np.arange(q)] = np.sqrt(rest)
    sign = np.sign(scales)
    return np.abs(scales), np.einsum("...ia,...ja,...i,...j->...ij", factor, factor, sign, sign)


def recover_effects(
    design: Design, crossing: Crossing, values: Arrays, *, seed: int, keep: Collection[str] | None = None
) -> Arrays:
    """Draw fixed and random effects given each draw of the variance parameters; exact and independent.

    `keep` names the levels whose effects are returned, all by default. Covariances may be singular.
    """
    chains, draws = values[names.SIGMA].shape[:2]
    n = chains * draws
    sigma = values[names.SIGMA].reshape(n, -1)
    if isinstance(crossing.residual, AR1):
        theta = np.column_stack([sigma, values[names.PHI].reshape(n)])
        coefs = _ar1_coefficients(crossing.residual, theta)
    elif isinstance(crossing.residual, ByPattern):
        corr = values[names.RESIDUAL_CORR].reshape(n, *[sigma.shape[1]] * 2)
        coefs = crossing.residual.coefficients(corr * sigma[:, :, None] * sigma[:, None, :])
    else:
        coefs = sigma**-2.0
    factors = []
    for level in design.levels:
        sd = values[names.sd(level.level)].reshape(n, -1)
        corr = values.get(names.corr(level.level))
        q = sd.shape[1]
        root = np.broadcast_to(np.eye(q), (n, q, q)) if corr is None else semidefinite_root(corr.reshape(n, q, q))
        factors.append(sd[:, :, None] * root)
    rng = np.random.default_rng([seed, 7])  # a stream of its own beside the sampler's
    given = values.get(names.BETA)
    levels = [level.level for level in design.levels if keep is None or level.level in keep]
    out: Arrays = {names.BETA: np.empty((n, len(design.terms)))}
    for level in design.levels:
        if level.level in levels:
            out[names.effect(level.level)] = np.empty((n, level.n_units, len(level.terms)))
    for chunk in _chunks(crossing, n):
        drawn = recover(
            crossing.cross,
            coefs[chunk],
            [f[chunk] for f in factors],
            rng=rng,
            beta=None if given is None else given.reshape(n, -1)[chunk],
            prior=crossing.beta_prior if given is None else None,
        )
        out[names.BETA][chunk] = drawn.beta
        for level, order, effects in zip(design.levels, crossing.order, drawn.effects, strict=True):
            if level.level in levels:
                out[names.effect(level.level)][chunk, order] = effects
    return {name: array.reshape(chains, draws, *array.shape[1:]) for name, array in out.items()}


def _chunks(crossing: Crossing, n: int) -> list[slice]:
    """Cut draws so that the effects of one cut stay below a quarter of a gigabyte."""
    per_draw = 8 * sum(units * z.size for units, z in zip(crossing.cross.sizes, crossing.cross.z, strict=True))
    size = max(1, _CHUNK_BYTES // per_draw)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def semidefinite_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower-triangular L with L L' equal to each matrix (n, q, q); a pivot of zero leaves its column zero."""
    rest = matrix.copy()
    root = np.zeros_like(rest)
    for j in range(matrix.shape[-1]):
        pivot = np.sqrt(np.maximum(rest[:, j, j], 0.0))
        safe = np.where(pivot > 0, pivot, 1.0)
        column = np.where(pivot[:, None] > 0, rest[:, :, j] / safe[:, None], 0.0)
        column[:, :j] = 0.0
        root[:, :, j] = column
        rest -= column[:, :, None] * column[:, None, :]
    return root


def _ar1_coefficients(residual: AR1, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    gaps = np.unique(residual.steps()[2])
    c, phi = theta[:, 0] ** -2.0, theta[:, 1]
    out = [c]
    for d in gaps:
        rho = np.sign(phi) ** d * np.abs(phi) ** d
        out += [c / (1 - rho**2), -c * rho / (1 - rho**2)]
    return np.column_stack(out)

r"""Fixed and random effects given ``y`` and the variance parameters: exact moments and exact independent draws.

With all levels eliminated, ``beta | y`` is normal. Walking down, each unit's effects given everything above are
normal with mean ``U a`` and covariance ``E``, where ``a (m,)`` says which combination of columns is left to explain:
1 for the response, ``-beta`` for the fixed effects, and minus the effects of the units above for their columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.cross import CrossProducts, FloatArray
from psymech.gaussian.eliminate import covariance, covariance_root, projection, regression
from psymech.gaussian.loglik import Collapsed, Prior, Top, run_forward, select_top, solve_top

MAX_BYTES = 64 * 2**20  # memory of one chunk of draws


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """Draws: ``beta (D, p)`` and, for each level, lowest first, ``effects (D, n_units, q)``."""

    beta: FloatArray
    effects: tuple[FloatArray, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and covariance given ``y``: of ``beta`` (covariance zero where beta is given), and of each unit's effects
    by level.
    """

    beta_mean: FloatArray  # (p,)
    beta_covariance: FloatArray  # (p, p)
    means: tuple[FloatArray, ...]  # (n_units, q)
    covariances: tuple[FloatArray, ...]  # (n_units, q, q)


def recover(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    *,
    rng: np.random.Generator,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> Recovered:
    """Draw fixed and random effects from their joint normal distribution given ``y``, once for each draw of the
    parameters.

    Parameters
    ----------
    cross
        Cross-products of the data.
    coefs
        ``(D, n_coef)``: residual coefficients of each draw.
    factors
        For each level, lowest first, ``(D, q, q)``.
    rng
        Source of randomness. The result depends on it and on the arguments only, not on how draws are cut into chunks.
    beta
        ``(D, p)`` or ``(p,)``: fixed effects of each draw; returned unchanged.
    prior
        ``(mean, precision)``: draw the fixed effects too. Exactly one of ``beta`` and ``prior``.

    Examples
    --------
    >>> from psymech.gaussian.cross import cross_products
    >>> cross = cross_products([[1.0], [1.0]], [2.0, 4.0], [0, 0], parents=[], z=[[0]], x=[0])
    >>> draws = recover(cross, [[1.0]] * 3, [np.zeros((3, 1, 1))], rng=np.random.default_rng(1), beta=[3.0])
    >>> draws.effects[0].shape
    (3, 1, 1)
    """
    weights = np.asarray(coefs, dtype=np.float64)
    roots = [np.asarray(factor, dtype=np.float64) for factor in factors]
    if weights.ndim != 2 or any(root.ndim != 3 or root.shape[0] != weights.shape[0] for root in roots):
        raise SpecError(
            f"Expected coefs (D, n_coef) and factors (D, q, q); found {weights.shape}, {[r.shape for r in roots]}."
        )
    n_draws, p = weights.shape[0], cross.x.size
    known = None if beta is None else np.broadcast_to(np.asarray(beta, dtype=np.float64), (n_draws, p))
    parts = []
    for chunk in chunks(cross, n_draws):
        mine = None if known is None else known[chunk]
        noise = Noise.draw(cross, chunk.stop - chunk.start, rng)
        parts.append(_recover_chunk(cross, weights[chunk], [r[chunk] for r in roots], noise, mine, prior))
    effects = tuple(np.concatenate([part.effects[level] for part in parts]) for level in range(cross.n_levels))
    return Recovered(np.concatenate([part.beta for part in parts]), effects)


def conditional_moments(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> Moments:
    """Return exact means and covariances given ``y`` at one value of the parameters; arguments as in
    `psymech.gaussian.loglik`.
    """
    done = run_forward(cross, coefs, factors)
    top = solve_top(select_top(cross, done.H), beta=beta, prior=prior)
    roots = [np.asarray(factor, dtype=np.float64) for factor in factors]
    p = cross.x.size
    beta_covariance = np.zeros((p, p)) if top.precision is None else np.linalg.inv(top.precision)
    mean = _left_over(cross, top.mean)[None, :]
    spread = np.zeros((1, cross.n_columns, cross.n_columns))
    spread[:, cross.x[:, None], cross.x] = beta_covariance
    means: list[FloatArray] = []
    covariances: list[FloatArray] = []
    for level in reversed(range(cross.n_levels)):
        z, root, step = cross.z[level], roots[level], done.levels[level]
        parent = _parent(cross, level)
        mean, spread = mean[parent], spread[parent]
        U, P, E = regression(root, step), projection(z, root, step), covariance(root, step)
        means.append(np.einsum("nqm,nm->nq", U, mean))
        covariances.append(U @ spread @ np.swapaxes(U, -1, -2) + E)
        mean = np.einsum("nij,nj->ni", P, mean)
        spread = P @ spread @ np.swapaxes(P, -1, -2)
        spread[:, z[:, None], z] += E
    return Moments(top.mean, beta_covariance, tuple(reversed(means)), tuple(reversed(covariances)))


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Standard normal numbers for every draw."""

    beta: FloatArray
    effects: tuple[FloatArray, ...]

    @classmethod
    def draw(cls, cross: CrossProducts, n_draws: int, rng: np.random.Generator) -> Self:
        """Take numbers draw by draw from the generator, so that the size of chunks does not matter."""
        p = cross.x.size
        ends = np.cumsum([p, *(n * z.size for n, z in zip(cross.sizes, cross.z, strict=True))])
        rows = rng.standard_normal((n_draws, int(ends[-1])))
        parts = np.split(rows, ends[:-1], axis=1)
        shapes = [(n_draws, n, z.size) for n, z in zip(cross.sizes, cross.z, strict=True)]
        effects = tuple(np.ascontiguousarray(part).reshape(s) for part, s in zip(parts[1:], shapes, strict=True))
        return cls(np.ascontiguousarray(parts[0]), effects)


def _recover_chunk(
    cross: CrossProducts,
    coefs: FloatArray,
    factors: list[FloatArray],
    noise: Noise,
    beta: FloatArray | None,
    prior: Prior | None,
) -> Recovered:
    done = run_forward(cross, coefs, factors)
    top = solve_top(select_top(cross, done.H), beta=beta, prior=prior)
    drawn = _draw_beta(top, noise.beta)
    left = _left_over(cross, drawn)[:, None, :]
    effects: list[FloatArray] = []
    for level in reversed(range(cross.n_levels)):
        left = left[:, _parent(cross, level)]
        effect = _draw_effects(done, level, factors[level], left, noise.effects[level])
        effects.append(effect)
        left = left.copy()
        left[..., cross.z[level]] -= effect
    return Recovered(drawn, tuple(reversed(effects)))


def _draw_beta(top: Top, noise: FloatArray) -> FloatArray:
    if top.precision is None:
        return np.array(top.mean)
    chol = np.linalg.cholesky(top.precision)
    return top.mean + np.linalg.solve(np.swapaxes(chol, -1, -2), noise[..., None])[..., 0]


def _draw_effects(done: Collapsed, level: int, factor: FloatArray, left: FloatArray, noise: FloatArray) -> FloatArray:
    step = done.levels[level]
    mean = np.einsum("dnqm,dnm->dnq", regression(factor, step), left)
    return mean + np.einsum("dnqr,dnr->dnq", covariance_root(factor, step), noise)


def _left_over(cross: CrossProducts, beta: FloatArray) -> FloatArray:
    left = np.zeros((*beta.shape[:-1], cross.n_columns))
    left[..., -1] = 1.0
    left[..., cross.x] = -beta
    return left


def _parent(cross: CrossProducts, level: int) -> np.ndarray:
    """Return the parent of each unit; the top level has one parent, the fixed effects."""
    if level == cross.n_levels - 1:
        return np.zeros(cross.sizes[level], dtype=np.int64)
    return cross.parents[level]


def chunks(cross: CrossProducts, n_draws: int) -> list[slice]:
    """Cut draws into chunks whose matrices, one for each draw and unit, fit in ``MAX_BYTES``."""
    m = cross.n_columns
    per_unit = 8 * (4 * m * m + max(z.size for z in cross.z) * 4 * m)  # matrices of one unit alive at once
    size = max(1, MAX_BYTES // (per_unit * sum(cross.sizes)))
    return [slice(start, min(start + size, n_draws)) for start in range(0, n_draws, size)]

r"""The explicit graph of a model with latent means: slopes act on deviations from means that are parameters.

Every variable is a response; with mean :math:`\mu` of each row (fixed effects and random intercepts), the density is

.. math::

    p(y) = \prod_n N\Big(y_n \mid \mu_n + \sum_j w_{nj}\,(\beta_j + u_{nj})\, d_{nj},\ \sigma^2\Big)

with :math:`d_{nj}` the deviation :math:`y_s - \mu_s` of the row s that column j takes for row n, or its residual. Rows
refer to rows of earlier responses or sessions only, so that this is the joint density of all responses (Asparouhov &
Muthen 2019, doi:10.1080/10705511.2018.1511375; McNeish & Hamaker 2020, doi:10.1037/met0000250).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.graph.explicit import coordinates, fixed_effects, level_effects, positive_sigma
from psymech.graph.variables import matmul
from psymech.latent_rows import LatentColumn, LatentDesign
from psymech.names import Level
from psymech.priors import ChosenPriors
from psymech.spec.model import response_label

Effects = Mapping[Level, TensorVariable]


def latent_model(design: Design, priors: ChosenPriors) -> pm.Model:
    """Return the model with latent means, every effect a variable; see :func:`psymech.build_model`."""
    assert design.latent is not None
    missing = {names.MISSING: np.arange(design.latent.n_imputed)} if design.latent.n_imputed else {}
    with pm.Model(coords={**coordinates(design), **missing}) as model:
        beta = fixed_effects(design, priors)
        effects = {level.level: level_effects(level, priors, design) for level in design.levels}
        _response(design, design.latent, beta, effects, positive_sigma(design, priors))
    return model


def _response(
    design: Design, latent: LatentDesign, beta: TensorVariable, effects: Effects, sigma: TensorVariable
) -> None:
    """Register the responses, and missing values that others depend on, given fixed and random effects.

    Each response is a vector of its own here, and each level's effects are gathered once for it: nothing is written
    into vectors by index, which is slow to compile and to differentiate.
    """
    blocks = response_blocks(latent)
    means, slopes = [], []
    for block in blocks:
        units = {level.level: effects[level.level][latent.code[level.level][block.rows]] for level in design.levels}
        means.append(_mean(design, latent, block, beta, units))
        slopes += [_slope(design, column, beta, units)[: block.n_model] for column in block.columns]
    missing = [_imputed(latent)] if latent.n_imputed else []
    n_means, n_slopes = len(means), len(slopes)
    given = latent.y[latent.n_obs + latent.n_imputed :]

    def logp(value: Any, rows: Any, sigma: Any, *rest: Any) -> Any:
        y = pt.concatenate([value, *rest[n_means + n_slopes :], pt.constant(given)])
        deviations = [y[block.rows] - mean for block, mean in zip(blocks, rest[:n_means], strict=True)]
        left = residuals(blocks, deviations, rest[n_means : n_means + n_slopes])
        return pt.add(*(pm.logp(pm.Normal.dist(0.0, sigma[r]), each).sum() for r, each in enumerate(left)))

    def random(rows: Any, sigma: Any, *rest: Any, rng: Any = None, size: Any = None) -> Any:
        return draw_latent(latent, sigma, rest[:n_means], rest[n_means : n_means + n_slopes], rng)[0]

    arguments = [*means, *slopes, *missing]
    pm.CustomDist(
        "y",
        pt.zeros(design.n_obs),
        sigma,
        *arguments,
        logp=logp,
        random=random,
        signature=",".join(["(o)", "(k)", *(f"(n{i})" for i in range(len(arguments)))]) + "->(o)",
        observed=design.y,
        dims=(names.OBS,),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ResponseBlock:
    """The rows of one response, those of the model first.

    Attributes
    ----------
    rows : (n,) indices into those of the latent design; n_model : how many of them are observed or imputed.
    columns : deviations and residuals that its slopes act on; at : for each, the place of every row of the model in the
        block of the column's source, or None where that is the same place.
    units : latent parts of units in its mean.
    """

    rows: NDArray[np.int64]
    n_model: int
    columns: tuple[LatentColumn, ...]
    at: tuple[NDArray[np.int64] | None, ...]
    units: tuple[LatentColumn, ...]


def response_blocks(latent: LatentDesign) -> tuple[ResponseBlock, ...]:
    """Return the rows by response, in causal order."""
    n_model = latent.n_obs + latent.n_imputed
    every = [np.flatnonzero(latent.response == r) for r in range(int(latent.response.max()) + 1)]
    place = np.zeros(latent.response.size, dtype=np.int64)
    for rows in every:
        place[rows] = np.arange(rows.size)
    out = []
    for r, rows in enumerate(every):
        own = [c for c in latent.columns if c.rows.size and latent.response[c.rows[0]] == r]
        moving = tuple(c for c in own if c.kind != "unit")
        size = int((rows < n_model).sum())
        at = tuple(_unless_same(place[c.at], _length(every[c.source], c, n_model)) for c in moving)
        out.append(ResponseBlock(rows, size, moving, at, tuple(c for c in own if c.kind == "unit")))
    return tuple(out)


def _length(rows: NDArray[np.int64], column: LatentColumn, n_model: int) -> int:
    """Length of the vector that a column is taken from: residuals exist for rows of the model only."""
    return int((rows < n_model).sum()) if column.kind == "residual" else rows.size


def _unless_same(at: NDArray[np.int64], length: int) -> NDArray[np.int64] | None:
    return None if np.array_equal(at, np.arange(length)) else at


def residuals(blocks: Sequence[ResponseBlock], deviations: Sequence[Any], slopes: Sequence[Any]) -> list[Any]:
    """What the latent columns leave of each response's deviations; responses in causal order, sources first."""
    left: list[Any] = []
    start = 0
    for block, deviation in zip(blocks, deviations, strict=True):
        residual = deviation[: block.n_model]
        for column, at, slope in zip(block.columns, block.at, slopes[start:], strict=False):
            source = deviations[column.source] if column.kind == "deviation" else left[column.source]
            taken = slope * (source if at is None else source[at])
            residual = residual - (taken if np.all(column.weight == 1.0) else column.weight * taken)
        start += len(block.columns)
        left.append(residual)
    return left


def _mean(
    design: Design, latent: LatentDesign, block: ResponseBlock, beta: TensorVariable, units: Effects
) -> TensorVariable:
    """Mean of each row: fixed effects of what is observed, random intercepts, and latent parts of units."""
    X = latent.X[block.rows]
    used = np.flatnonzero((X != 0).any(axis=0))
    mean = matmul(pt.constant(X[:, used]), beta[used]) if used.size else pt.zeros(block.rows.size)
    for level in design.levels:
        Z = latent.Z[level.level][block.rows]
        for j in np.flatnonzero((Z != 0).any(axis=0)):
            part = units[level.level][:, j]
            mean = mean + (part if np.all(Z[:, j] == 1.0) else Z[:, j] * part)
    for column in block.units:
        assert column.level is not None
        level = design.level(column.level)
        assert level is not None
        intercept = level.terms.index(response_label(design.responses[column.source], names.INTERCEPT))
        part = units[column.level][:, intercept] * column.weight
        mean = mean + _slope(design, column, beta, units) * part
    return mean


def _slope(design: Design, column: LatentColumn, beta: TensorVariable, units: Effects) -> TensorVariable:
    """Slope of a latent column in each row of its response."""
    label = design.terms[column.term]
    slope = beta[column.term] * np.ones(1)
    for level in design.levels:
        if label in level.terms:
            slope = slope + units[level.level][:, level.terms.index(label)]
    return slope


def _imputed(latent: LatentDesign) -> TensorVariable:
    """Missing values as free parameters; the rows' density is theirs.

    They need a proper distribution to be drawn forward from, which the potential takes back.
    """
    rows = slice(latent.n_obs, latent.n_obs + latent.n_imputed)
    spread = np.array([latent.y[latent.response == r].std() for r in range(latent.response.max() + 1)])
    standard = pm.Normal("z_imputed", 0.0, 1.0, dims=(names.MISSING,))
    pm.Potential("reference_imputed", -pm.logp(pm.Normal.dist(0.0, 1.0), standard).sum())
    values = latent.y[rows] + spread[latent.response[rows]] * standard
    return pm.Deterministic(names.IMPUTED, values, dims=(names.MISSING,))


def draw_latent(
    latent: LatentDesign,
    sigma: NDArray,
    means: Sequence[NDArray],
    slopes: Sequence[NDArray],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw all responses anew, each row after those it refers to; values given before the first rows stay.

    Returns the values of the design's rows, and those of all rows.
    """
    n = latent.n_obs + latent.n_imputed
    blocks = response_blocks(latent)
    mean = np.zeros(len(latent.y))
    for block, values in zip(blocks, means, strict=True):
        mean[block.rows] = values
    noise = sigma[latent.response[:n]] * rng.standard_normal(n)
    deviation, residual = latent.y - mean, np.zeros(len(mean))
    residual[:n] = noise
    columns = [column for block in blocks for column in block.columns]
    none = np.zeros(0, dtype=np.int64)  # a trait that acts on a score through latent means of patients alone
    target = np.concatenate([none, *(column.rows for column in columns)])
    source = np.concatenate([none, *(column.at for column in columns)])
    times = np.concatenate([none, *(slope * column.weight for slope, column in zip(slopes, columns, strict=True))])
    kinds = [np.full(column.rows.size, column.kind == "deviation") for column in columns]
    whole = np.concatenate([none, *kinds]).astype(bool)
    wave = waves(len(mean), n, target, source)
    for step in range(int(wave.max()) + 1):
        rows = np.flatnonzero(wave == step)
        chosen = np.flatnonzero(wave[target] == step)
        total = np.zeros(len(mean))
        np.add.at(total, target[chosen], times[chosen] * np.where(whole, deviation[source], residual[source])[chosen])
        deviation[rows] = total[rows] + noise[rows]
    drawn = mean + deviation
    return drawn[: latent.n_obs], drawn


def waves(n: int, n_drawn: int, target: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each drawn row in an order in which sources come first; -1 for rows that are not drawn."""
    wave = np.where(np.arange(n) < n_drawn, 0, -1)
    while True:
        after = wave.copy()
        np.maximum.at(after, target, wave[source] + 1)
        if np.array_equal(after, wave):
            return wave
        wave = after

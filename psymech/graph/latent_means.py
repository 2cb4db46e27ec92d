r"""The explicit graph of a model with latent means: slopes act on deviations from means that are parameters.

Every variable is a response; with mean :math:`\mu` of each row (fixed effects and random intercepts), the density is

.. math::

    p(y) = \prod_n N\Big(y_n \mid \mu_n + \sum_j w_{nj}\,(\beta_j + u_{nj})\, d_{nj},\ \sigma^2\Big)

with :math:`d_{nj}` the deviation :math:`y_s - \mu_s` of the row s that column j takes for row n, or its residual. Rows
refer to rows of earlier responses or sessions only, so that this is the joint density of all responses (Asparouhov &
Muthen 2019, doi:10.1080/10705511.2018.1511375; McNeish & Hamaker 2020, doi:10.1037/met0000250).
"""

from collections.abc import Mapping
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
IMPUTED = "imputed"


def latent_model(design: Design, priors: ChosenPriors) -> pm.Model:
    """Return the model with latent means, every effect a variable; see :func:`psymech.build_model`."""
    assert design.latent is not None
    with pm.Model(coords=coordinates(design)) as model:
        beta = fixed_effects(design, priors)
        effects = {level.level: level_effects(level, priors, design) for level in design.levels}
        _response(design, design.latent, beta, effects, positive_sigma(design, priors))
    return model


def _response(
    design: Design,
    latent: LatentDesign,
    beta: TensorVariable,
    effects: Effects,
    sigma: TensorVariable,
) -> None:
    """Register the responses, and missing values that others depend on, given fixed and random effects."""
    mean = _means(design, latent, beta, effects)
    moving = [column for column in latent.columns if column.kind != "unit"]
    slopes = pt.concatenate([_slope(design, latent, column, beta, effects) for column in moving])
    sd = sigma[latent.response[: latent.n_obs + latent.n_imputed]]
    missing = [_imputed(latent)] if latent.n_imputed else []

    def logp(value: Any, rows: Any, mean: Any, slopes: Any, sd: Any, *missing: Any) -> Any:
        y = pt.concatenate([value, *missing, pt.constant(latent.y[latent.n_obs + latent.n_imputed :])])
        residual = _residuals(latent, moving, y - mean, slopes)
        return pm.logp(pm.Normal.dist(0.0, sd), residual[: latent.n_obs + latent.n_imputed]).sum()

    def random(rows: Any, mean: Any, slopes: Any, sd: Any, *missing: Any, rng: Any = None, size: Any = None) -> Any:
        return draw_latent(latent, mean, slopes, sd, rng)[0]

    pm.CustomDist(
        "y",
        pt.zeros(design.n_obs),
        mean,
        slopes,
        sd,
        *missing,
        logp=logp,
        random=random,
        signature="(o),(n),(s),(d),(m)->(o)" if missing else "(o),(n),(s),(d)->(o)",
        observed=design.y,
        dims=(names.OBS,),
    )


def _means(design: Design, latent: LatentDesign, beta: TensorVariable, effects: Effects) -> TensorVariable:
    """Mean of each row: fixed effects of what is observed, random intercepts, and latent parts of units."""
    observed = np.setdiff1d(np.arange(len(design.terms)), latent.terms)
    mean = matmul(pt.constant(latent.X[:, observed]), beta[observed])
    for level in design.levels:
        Z, code = latent.Z[level.level], latent.code[level.level]
        used = np.flatnonzero((Z != 0).any(axis=0))
        mean = mean + pt.sum(pt.constant(Z[:, used]) * effects[level.level][:, used][code], axis=1)
    for column in latent.columns:
        if column.kind == "unit":
            part = _unit(design, latent, column, effects)
            mean = _add(mean, column.rows, _slope(design, latent, column, beta, effects) * part)
    return mean


def _residuals(latent: LatentDesign, columns: list[LatentColumn], deviation: Any, slopes: Any) -> Any:
    """What the latent columns leave of the deviations; responses in causal order, so that sources come first."""
    residual = deviation
    start = 0
    for group in _by_rows(latent, columns):
        taken = 0.0
        for column in group:
            stop = start + column.rows.size
            source = deviation if column.kind == "deviation" else residual
            taken = taken + slopes[start:stop] * column.weight * source[column.at]
            start = stop
        residual = _add(residual, group[0].rows, -1.0 * taken)
    return residual


def _by_rows(latent: LatentDesign, columns: list[LatentColumn]) -> list[list[LatentColumn]]:
    """Columns of one response together; they act in the same rows."""
    groups: dict[int, list[LatentColumn]] = {}
    for column in columns:
        groups.setdefault(int(latent.response[column.rows[0]]), []).append(column)
    return list(groups.values())


def _add(values: Any, rows: NDArray[np.int64], more: Any) -> Any:
    return pt.inc_subtensor(values[rows], more)


def _slope(
    design: Design,
    latent: LatentDesign,
    column: LatentColumn,
    beta: TensorVariable,
    effects: Effects,
) -> TensorVariable:
    """Slope of a latent column in each of its rows."""
    slope = beta[column.term] * np.ones(column.rows.size)
    label = design.terms[column.term]
    for level in design.levels:
        if label in level.terms:
            code = latent.code[level.level][column.rows]
            slope = slope + effects[level.level][:, level.terms.index(label)][code]
    return slope


def _unit(design: Design, latent: LatentDesign, column: LatentColumn, effects: Effects) -> TensorVariable:
    """Latent part of the unit to which each row of a column belongs, weighted."""
    assert column.level is not None
    level = design.level(column.level)
    assert level is not None
    label = response_label(design.responses[column.source], names.INTERCEPT)
    code = latent.code[level.level][column.rows]
    return effects[level.level][:, level.terms.index(label)][code] * column.weight


def _imputed(latent: LatentDesign) -> TensorVariable:
    """Missing values as free parameters; the rows' density is theirs.

    They need a proper distribution to be drawn forward from, which the potential takes back.
    """
    rows = slice(latent.n_obs, latent.n_obs + latent.n_imputed)
    spread = np.array([latent.y[latent.response == r].std() for r in range(latent.response.max() + 1)])
    standard = pm.Normal(IMPUTED, 0.0, 1.0, shape=latent.n_imputed)
    pm.Potential(f"{IMPUTED}_reference", -pm.logp(pm.Normal.dist(0.0, 1.0), standard).sum())
    return latent.y[rows] + spread[latent.response[rows]] * standard


def draw_latent(
    latent: LatentDesign, mean: NDArray, slopes: NDArray, sd: NDArray, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw all responses anew, each row after those it refers to; values given before the first rows stay.

    Returns the values of the design's rows, and those of all rows.
    """
    n = latent.n_obs + latent.n_imputed
    moving = [column for column in latent.columns if column.kind != "unit"]
    noise = sd * rng.standard_normal(n)
    deviation, residual = latent.y - mean, np.zeros(len(mean))
    residual[:n] = noise
    target = np.concatenate([column.rows for column in moving])
    source = np.concatenate([column.at for column in moving])
    times = slopes * np.concatenate([column.weight for column in moving])
    whole = np.concatenate([np.full(column.rows.size, column.kind == "deviation") for column in moving])
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

"""Data sets that a fitted model would produce: replicated outcomes, drawn on demand in chunks from the tree alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit

from psymech import names
from psymech.errors import SpecError
from psymech.names import SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows
from psymech.posterior.residuals import row_sd

Floats = NDArray[np.float64]
CHUNK_VALUES: Final = 2**21  # draws x rows held at a time: 16 MB an array


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some posterior draws (s) of one response's rows (n): linear predictor in parts, and what is needed to draw y.

    Attributes
    ----------
    fixed : (s, n) fixed part of the linear predictor.
    seen : by level, (s, n) contribution of the fitted units' effects.
    anew : by level, (s, n) contribution of new units' effects, drawn from the level's normal distribution.
    effects, effects_anew : by level, (s, n_units, n_terms) the effects behind them.
    draw : which posterior draws, index into chain x draw.
    """

    fixed: Floats
    seen: Mapping[str, Floats]
    anew: Mapping[str, Floats]
    effects: Mapping[str, Floats]
    effects_anew: Mapping[str, Floats]
    draw: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one response, in the order patient, session.

    Attributes
    ----------
    index : (n,) positions in the tree's rows.
    y : (n,) observed outcome; unit : by level, (n,) unit of each row, of several the one with the largest share;
    session : (n,) session numbers.
    place : (n,) how many rows the patient has before this one; gap : (n,) sessions since the patient's row before.
    """

    response: str
    family: str
    index: NDArray[np.int64]
    y: Floats
    unit: Mapping[str, NDArray[np.int64]]
    session: Floats
    place: NDArray[np.int64]
    gap: Floats


def rows_of(tree: xr.DataTree, response: str) -> Rows:
    """Return a response's rows with an observed outcome, sorted by patient and session."""
    rows = read.rows_of_response(tree, response)
    y = read.outcome(tree)
    rows = rows[np.isfinite(y[rows])]
    data = read.constants(tree)
    session = data[names.SESSION_OF_OBS].values.astype(float)
    patient = patient_of_rows(tree)
    index = rows[np.lexsort((session[rows], patient[rows]))]
    starts = np.flatnonzero(np.diff(patient[index], prepend=-1))
    place = np.arange(index.size) - np.repeat(starts, np.diff(np.append(starts, index.size)))
    gap = np.diff(session[index], prepend=np.nan)
    gap[place == 0] = np.nan
    unit = {level: read.shares_of_obs(tree, level)[0][index, 0] for level in read.levels_of(tree)}
    unit.setdefault("patient", patient[index])
    return Rows(response, read.family_of(tree, response), index, y[index], unit, session[index], place, gap)


def thinned(tree: xr.DataTree, draws: int) -> NDArray[np.int64]:
    """Return evenly spaced posterior draws, at most `draws` of them, as indices into chain x draw."""
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise SpecError(f"draws: expected a whole number above zero, found {draws!r}.")
    sizes = read.posterior(tree).sizes
    total = sizes[names.CHAIN] * sizes[names.DRAW]
    return np.unique(np.linspace(0, total - 1, min(int(draws), total)).astype(np.int64))


def chunks(tree: xr.DataTree, rows: Rows, *, draws: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Go through thinned posterior draws, so many at a time that memory stays small."""
    chosen = thinned(tree, draws)
    step = max(1, CHUNK_VALUES // max(rows.index.size, 1))
    posterior = read.posterior(tree)
    beta = posterior[names.BETA].transpose(*SAMPLE_DIMS, names.TERM).values
    beta = beta.reshape(-1, beta.shape[-1])
    design = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM).values[rows.index].astype(float)
    levels = read.levels_of(tree)
    z = {level: read.design_rows(tree, level, rows.index) for level in levels}
    root = {level: _roots(read.covariance(tree, level)) for level in levels}
    shares = {level: tuple(each[rows.index] for each in read.shares_of_obs(tree, level)) for level in levels}
    effects = {}
    for level in levels:
        u = posterior[names.effect(level)].transpose(*SAMPLE_DIMS, level, names.term_dim(level)).values
        effects[level] = u.reshape(-1, *u.shape[2:])
    for start in range(0, chosen.size, step):
        draw = chosen[start : start + step]
        mine = {level: effects[level][draw] for level in levels}
        fresh = {
            level: np.einsum("sij,skj->ski", root[level][draw], rng.standard_normal(mine[level].shape))
            for level in levels
        }
        yield Chunk(
            fixed=beta[draw] @ design.T,
            seen={level: contribution(mine[level], z[level], *shares[level]) for level in levels},
            anew={level: contribution(fresh[level], z[level], *shares[level]) for level in levels},
            effects=mine,
            effects_anew=fresh,
            draw=draw,
        )


def _roots(covariance: Floats) -> Floats:
    """Square roots (chain x draw, q, q) of covariance matrices, singular ones included."""
    values, vectors = np.linalg.eigh(covariance.reshape(-1, *covariance.shape[2:]))
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def contribution(effects: Floats, z: Floats, unit: NDArray[np.int64], weight: Floats) -> Floats:
    """Part of the linear predictor (s, n) that comes from effects (s, n_units, n_terms) of the units of each row,
    (n, m) with their weights.
    """
    total = np.zeros((effects.shape[0], len(unit)))
    for j in range(z.shape[1]):
        if z[:, j].any():
            mine = np.ascontiguousarray(effects[:, :, j])
            for k in range(unit.shape[1]):
                part = np.take(mine, unit[:, k], axis=1)
                part *= z[:, j] * weight[:, k]
                total += part
    return total


def linear(chunk: Chunk, *, anew: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Floats:
    """Linear predictor (s, n): fitted units' effects, those of new units at the levels `anew`, none `without`."""
    total = chunk.fixed.copy()
    for level, seen in chunk.seen.items():
        if level not in without:
            total += chunk.anew[level] if level in anew else seen
    return total


def expected(tree: xr.DataTree, rows: Rows, eta: Floats, draw: NDArray[np.int64]) -> Floats:
    """Expected outcome (s, n) at a linear predictor; of an ordinal outcome, the expected category code."""
    if rows.family == "bernoulli":
        return expit(eta)
    if rows.family != "ordinal":
        return eta
    return lowest(rows) + np.sum([expit(eta - cut) for cut in _cutpoints(tree, draw)], axis=0)


def draw_outcome(
    tree: xr.DataTree, rows: Rows, eta: Floats, draw: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Replicated outcomes (s, n) at a linear predictor, residuals included (AR(1) ones session by session)."""
    if rows.family == "bernoulli":
        return (rng.random(eta.shape) < expit(eta)).astype(float)
    if rows.family == "ordinal":
        latent = eta + rng.logistic(size=eta.shape)
        return lowest(rows) + np.sum([latent > cut for cut in _cutpoints(tree, draw)], axis=0).astype(float)
    sigma = row_sd(tree, rows.response, rows.index).of_rows(draw)
    if rows.family == "student":
        nu = read.per_response(tree, names.NU, rows.response).values.reshape(-1)[draw][:, None]
        return eta + sigma * rng.standard_t(np.broadcast_to(nu, eta.shape))
    noise = rng.standard_normal(eta.shape)
    if names.PHI in read.posterior(tree):
        phi = read.per_response(tree, names.PHI, rows.response).values.reshape(-1)[draw]
        noise = _autoregressive(noise, phi, rows)
    return eta + sigma * noise


def _autoregressive(noise: Floats, phi: Floats, rows: Rows) -> Floats:
    """Turn independent noise (s, n) into AR(1) noise of variance one along each patient's sessions."""
    out = noise.copy()
    for place in range(1, int(rows.place.max(initial=0)) + 1):
        at = np.flatnonzero(rows.place == place)
        carried = np.sign(phi)[:, None] ** rows.gap[at] * np.abs(phi)[:, None] ** rows.gap[at]
        out[:, at] = carried * out[:, at - 1] + np.sqrt(1.0 - carried**2) * noise[:, at]
    return out


def lowest(rows: Rows) -> float:
    """Code of an ordinal outcome's lowest category."""
    return float(rows.y.min())


def _cutpoints(tree: xr.DataTree, draw: NDArray[np.int64]) -> list[Floats]:
    cut = read.posterior(tree)[names.CUTPOINTS].transpose(*SAMPLE_DIMS, names.THRESHOLD).values
    flat = cut.reshape(-1, cut.shape[-1])[draw]
    return [flat[:, j : j + 1] for j in range(flat.shape[1])]

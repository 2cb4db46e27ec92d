"""Data sets that a fitted model would produce: replicated outcomes, drawn on demand in chunks from the tree alone."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit

from psymech import names
from psymech.errors import SpecError
from psymech.gaussian.threads import available_cores
from psymech.names import SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows
from psymech.posterior.residuals import RowSD, row_sd

Floats = NDArray[np.float64]
CHUNK_VALUES: Final = 2**18  # draws x rows held at a time: 2 MB an array, which stays near the processor
MOST_THREADS: Final = 8  # each holds a dozen such arrays


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


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What chunks are made of: all draws (D) of one response's fixed and random effects, and its rows' columns."""

    beta: Floats  # (D, n_fixed)
    design: Floats  # (n, n_fixed)
    effects: Mapping[str, Floats]  # (D, n_units, n_terms)
    root: Mapping[str, Floats]  # (D, n_terms, n_terms)
    z: Mapping[str, Floats]  # (n, n_terms)
    shares: Mapping[str, tuple[NDArray[np.int64], Floats]]

    def chunk(self, draw: NDArray[np.int64], rng: np.random.Generator) -> Chunk:
        """Return some draws."""
        mine = {level: effects[draw] for level, effects in self.effects.items()}
        fresh = {
            level: np.einsum("sij,skj->ski", self.root[level][draw], rng.standard_normal(mine[level].shape))
            for level in mine
        }
        return Chunk(
            fixed=_product(self.beta[draw], self.design),
            seen={level: contribution(mine[level], self.z[level], *self.shares[level]) for level in mine},
            anew={level: contribution(fresh[level], self.z[level], *self.shares[level]) for level in mine},
            effects=mine,
            effects_anew=fresh,
            draw=draw,
        )


def _product(beta: Floats, design: Floats) -> Floats:
    """Fixed part (s, n); column by column, as the threads of a matrix product would wait for each other here."""
    total = np.zeros((beta.shape[0], design.shape[0]))
    part = np.empty_like(total)
    for j in range(design.shape[1]):
        total += np.multiply(beta[:, j : j + 1], design[:, j], out=part)
    return total


def source_of(tree: xr.DataTree, rows: Rows) -> Source:
    """Read what chunks are made of."""
    beta = read.posterior(tree)[names.BETA].transpose(*SAMPLE_DIMS, names.TERM).values
    levels = read.levels_of(tree)
    effects, shares = {}, {}
    for level in levels:
        u = read.level_effects(tree, level).values
        effects[level] = u.reshape(-1, *u.shape[2:])
        unit, weight = read.shares_of_obs(tree, level)
        shares[level] = unit[rows.index], weight[rows.index]
    return Source(
        beta=beta.reshape(-1, beta.shape[-1]),
        design=read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM).values[rows.index].astype(float),
        effects=effects,
        root={level: read.covariance_root(tree, level) for level in levels},
        z={level: read.design_rows(tree, level, rows.index) for level in levels},
        shares=shares,
    )


def _cut(
    tree: xr.DataTree, rows: Rows, draws: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], np.random.Generator]]:
    """Thinned draws, some at a time, each part with random numbers of its own."""
    chosen = thinned(tree, draws)
    step = max(1, CHUNK_VALUES // max(rows.index.size, 1))
    parts = [chosen[start : start + step] for start in range(0, chosen.size, step)]
    return list(zip(parts, rng.spawn(len(parts)), strict=True))


def chunks(tree: xr.DataTree, rows: Rows, *, draws: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Go through thinned posterior draws, so many at a time that memory stays small."""
    source = source_of(tree, rows)
    for draw, own in _cut(tree, rows, draws, rng):
        yield source.chunk(draw, own)


def over_chunks[T](
    work: Callable[[Chunk, np.random.Generator], T],
    tree: xr.DataTree,
    rows: Rows,
    *,
    draws: int,
    rng: np.random.Generator,
) -> list[T]:
    """Return what `work` makes of each chunk, in order, some chunks side by side.

    It gets random numbers of the chunk's own, so that the result does not depend on the number of cores.
    """
    source, parts = source_of(tree, rows), _cut(tree, rows, draws, rng)

    def one(part: tuple[NDArray[np.int64], np.random.Generator]) -> T:
        draw, own = part
        return work(source.chunk(draw, own), own)

    workers = min(available_cores(), MOST_THREADS, len(parts))
    if workers == 1:
        return [one(part) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, parts))


def contribution(effects: Floats, z: Floats, unit: NDArray[np.int64], weight: Floats) -> Floats:
    """Part of the linear predictor (s, n) that comes from effects (s, n_units, n_terms) of the units of each row,
    (n, m) with their weights.
    """
    total = np.zeros((effects.shape[0], len(unit)))
    for j in range(z.shape[1]):
        if z[:, j].any():
            mine = np.ascontiguousarray(effects[:, :, j])
            for k in range(unit.shape[1]):
                part, scale = np.take(mine, unit[:, k], axis=1), z[:, j] * weight[:, k]
                if (scale != 1.0).any():
                    part *= scale
                total += part
    return total


def linear(chunk: Chunk, *, anew: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Floats:
    """Linear predictor (s, n): fitted units' effects, those of new units at the levels `anew`, none `without`."""
    total = chunk.fixed.copy()
    for level, seen in chunk.seen.items():
        if level not in without:
            total += chunk.anew[level] if level in anew else seen
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """Distribution of one response's outcomes given the linear predictor, at all draws (D).

    Attributes
    ----------
    sd : residual SDs, of a Gaussian or Student-t outcome; nu, phi : (D,) or None; cut : (D, n_cutpoints) or None.
    """

    rows: Rows
    sd: RowSD | None
    nu: Floats | None
    phi: Floats | None
    cut: Floats | None

    def expected(self, eta: Floats, draw: NDArray[np.int64]) -> Floats:
        """Return the expected outcome (s, n) at a linear predictor; of an ordinal outcome, the expected code."""
        if self.cut is not None:
            chances = (expit(eta - self.cut[draw, j][:, None]) for j in range(self.cut.shape[1]))
            return lowest(self.rows) + sum(chances, start=np.zeros(1))
        return eta if self.sd is not None else expit(eta)

    def noise(self, draw: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """Draw what outcomes (s, n) vary by: residuals (AR(1) ones session by session), or latent logistic ones."""
        shape = (draw.size, self.rows.index.size)
        if self.sd is None:
            return rng.logistic(size=shape)
        if self.nu is not None:
            return self.sd.of_rows(draw) * rng.standard_t(np.broadcast_to(self.nu[draw][:, None], shape))
        noise = rng.standard_normal(shape)
        if self.phi is not None:
            noise = _autoregressive(noise, self.phi[draw], self.rows)
        noise *= self.sd.of_rows(draw)
        return noise

    def outcome(self, eta: Floats, noise: Floats, draw: NDArray[np.int64]) -> Floats:
        """Return outcomes (s, n) at a linear predictor and what they vary by."""
        latent = eta + noise
        if self.cut is not None:
            above = (latent > self.cut[draw, j][:, None] for j in range(self.cut.shape[1]))
            return lowest(self.rows) + sum(above, start=np.zeros(1))
        return latent if self.sd is not None else (latent > 0.0).astype(float)


def law_of(tree: xr.DataTree, rows: Rows) -> Law:
    """Read the distribution of a response's outcomes."""
    if rows.family == "bernoulli":
        return Law(rows, None, None, None, None)
    if rows.family == "ordinal":
        cut = read.posterior(tree)[names.CUTPOINTS].transpose(*SAMPLE_DIMS, names.THRESHOLD).values
        return Law(rows, None, None, None, cut.reshape(-1, cut.shape[-1]))
    student, known = rows.family == "student", read.posterior(tree)
    return Law(
        rows,
        row_sd(tree, rows.response, rows.index),
        read.per_response(tree, names.NU, rows.response).values.reshape(-1) if student else None,
        read.per_response(tree, names.PHI, rows.response).values.reshape(-1)
        if names.PHI in known and not student
        else None,
        None,
    )


def draw_outcome(
    tree: xr.DataTree, rows: Rows, eta: Floats, draw: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Replicated outcomes (s, n) at a linear predictor, residuals included."""
    law = law_of(tree, rows)
    return law.outcome(eta, law.noise(draw, rng), draw)


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

"""One simulation: parameters, responses, a fit, and where the truth stands among its draws."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.calibration.parameters import draw_parameters
from psymech.calibration.quantities import Plan, drawn_vectors, true_vector
from psymech.calibration.responses import draw_responses
from psymech.data.sessions import SessionData
from psymech.graph.build import BuiltModel
from psymech.inference.chains import RunOptions
from psymech.inference.sample import sample
from psymech.priors import choose_priors

Floats = NDArray[np.float64]
Fit = Callable[[BuiltModel, int], xr.DataTree]
SCREENED = 4  # entries with the largest plain R-hat, and as many with the largest autocorrelation
OK, UNRELIABLE, ERROR = "ok", "unreliable", "error"


@dataclass(frozen=True, slots=True)
class Settings:
    """How each simulation is fitted and judged."""

    draws: int
    tune: int
    chains: int
    thinned: int
    target_accept: float
    max_r_hat: float
    min_ess: float
    max_divergent: float
    fresh_priors: bool
    truth: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a simulation needs besides its number. Travels to the workers of a cluster."""

    built: BuiltModel
    data: SessionData
    plan: Plan
    settings: Settings
    seed: int
    fit: Fit | None = None
    key: str = field(default="")

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.key == self.key


def identity(built: BuiltModel, settings: Settings, seed: int) -> dict[str, object]:
    """Return what a run is: two runs of one identity make the same fits."""
    design = built.design
    digest = hashlib.sha256()
    for array in (
        design.y,
        design.X,
        design.row,
        design.response,
        *(a for lv in design.levels for a in (lv.code, lv.Z)),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    priors = {
        "beta": [str(p) for p in built.priors.beta],
        "sd": {k: [str(p) for p in v] for k, v in built.priors.sd.items()},
        "corr": {k: str(v) for k, v in built.priors.corr.items()},
        "sigma": [str(p) for p in built.priors.sigma],
        "others": [
            str(getattr(built.priors, name)) for name in ("phi", "nu", "cutpoints", "residual_corr", "sd_log_sigma")
        ]
        + [str(prior) for prior in (built.priors.corr_log_sigma,) if prior is not None],
    }
    return {
        "specification": built.spec.to_json(),
        "engine": built.engine,
        "design": digest.hexdigest(),
        "priors": priors,
        "settings": asdict(settings),
        "seed": seed,
    }


def simulate_and_fit(job: Job, number: int) -> dict[str, Any]:
    """Return the record of one simulation; a fit that raises is a record too.

    The record depends on the job and the number alone, not on the order of work.
    """
    streams = np.random.SeedSequence(job.seed, spawn_key=(number,)).spawn(3)
    record: dict[str, Any] = {"simulation": number}
    start = time.perf_counter()
    try:
        built, truth = replicate(job, np.random.default_rng(streams[0]), np.random.default_rng(streams[1]))
        record["truth"] = truth.tolist()
        tree = fitter(job)(built, int(streams[2].generate_state(1)[0]))
        record |= compare(job.plan, built, tree, truth, job.settings)
    except Exception as problem:
        record |= {"status": ERROR, "message": f"{type(problem).__name__}: {problem}"[:300]}
    return record | {"seconds": round(time.perf_counter() - start, 3)}


def replicate(job: Job, of_parameters: np.random.Generator, of_rows: np.random.Generator) -> tuple[BuiltModel, Floats]:
    """Draw parameters and responses; return the model of the drawn responses and the true values."""
    built = job.built
    values = draw_parameters(built.design, built.priors, of_parameters, truth=dict(job.settings.truth))
    design, _ = draw_responses(built.spec, job.data, built.design, values, of_rows)
    priors = choose_priors(built.spec, design) if job.settings.fresh_priors else built.priors
    new = BuiltModel(built.spec, design, priors, built.engine, built.reason)
    return new, true_vector(job.plan, built.spec, design, values)


def compare(plan: Plan, built: BuiltModel, tree: xr.DataTree, truth: Floats, settings: Settings) -> dict[str, Any]:
    """Return ranks of the truth among thinned draws, posterior means and SDs, and whether the draws are reliable."""
    posterior = tree[names.POSTERIOR].dataset
    n_chains, n_draws = posterior.sizes[names.CHAIN], posterior.sizes[names.DRAW]
    kept = np.linspace(0, n_chains * n_draws, settings.thinned, endpoint=False).astype(np.int64)
    every = drawn_vectors(plan, built.design, tree, kept)
    flat = every.reshape(n_chains * n_draws, -1)
    record: dict[str, Any] = {
        "rank": (flat[kept] < truth).sum(axis=0).tolist(),
        "mean": np.nanmean(flat, axis=0).tolist(),
        "sd": np.nanstd(flat, axis=0, ddof=1).tolist(),
    }
    if not np.isfinite(flat[kept]).all():
        return record | {"status": ERROR, "message": "draws or log likelihoods that are not finite"}
    if np.isinf(settings.max_r_hat):
        return record | {"status": OK, "message": ""}
    r_hat, ess = _convergence(every[..., np.isfinite(every).all(axis=(0, 1))])
    divergent = float(tree[names.SAMPLE_STATS].dataset["diverging"].mean())
    record |= {"r_hat": r_hat, "ess": ess, "divergent": divergent}
    reasons = [
        text
        for bad, text in (
            (not r_hat <= settings.max_r_hat, f"R-hat {r_hat:.3f}"),
            (not ess >= settings.min_ess, f"effective sample size {ess:.0f}"),
            (divergent > settings.max_divergent, f"{100 * divergent:.1f}% divergences"),
        )
        if bad
    ]
    return record | {"status": UNRELIABLE if reasons else OK, "message": ", ".join(reasons)}


def _convergence(draws: Floats) -> tuple[float, float]:
    """Largest R-hat, and smallest bulk or tail effective sample size, of the entries that a screen finds worst."""
    from arviz_stats.sampling_diagnostics import ess, rhat

    varying = draws[..., np.ptp(draws, axis=(0, 1)) > 0]
    if varying.shape[-1] == 0:
        return float("nan"), float("nan")
    worst = varying[..., _suspects(varying)]
    array = xr.DataArray(worst, dims=(*names.SAMPLE_DIMS, "entry"))
    dims = list(names.SAMPLE_DIMS)
    smallest = [float(ess(array, sample_dims=dims, method=method).min()) for method in ("bulk", "tail")]
    return float(rhat(array, sample_dims=dims).max()), min(smallest)


def _suspects(draws: Floats) -> NDArray[np.int64]:
    """Entries with the largest ratio of variances between and within halves of chains, and the most sluggish ones."""
    n = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :n], draws[:, n : 2 * n]]) if n else draws
    ratio = halves.mean(axis=1).var(axis=0) / np.maximum(halves.var(axis=1).mean(axis=0), np.finfo(float).tiny)
    centred = draws - draws.mean(axis=1, keepdims=True)
    sluggish = (centred[:, 1:] * centred[:, :-1]).sum(axis=(0, 1)) / (centred**2).sum(axis=(0, 1))
    return np.union1d(np.argsort(ratio)[-SCREENED:], np.argsort(sluggish)[-SCREENED:])


def fitter(job: Job) -> Fit:
    """Return how a job is fitted; an explicit graph is compiled once a process."""
    if job.fit is not None:
        return job.fit
    with _LOCK:
        return _own_fit(job)


_LOCK = Lock()


@lru_cache(maxsize=1)
def _own_fit(job: Job) -> Fit:
    """The library's own way, with the job's settings."""
    s = job.settings
    options: Mapping[str, Any] = {"draws": s.draws, "tune": s.tune, "chains": s.chains, "cores": 1}
    if job.built.engine == "explicit":
        from psymech.inference.refits import compile_refits

        refits = compile_refits(job.built)

        def refit(built: BuiltModel, seed: int) -> xr.DataTree:
            more = {"target_accept": s.target_accept, "max_treedepth": 10, "progressbar": False}
            return refits.sample(built, RunOptions(seed=seed, **options, **more))

        return refit

    def fit(built: BuiltModel, seed: int) -> xr.DataTree:
        tree = sample(built, seed=seed, target_accept=s.target_accept, progressbar=False, **options)
        if names.ATTR_INTERRUPTED in tree.attrs:  # Ctrl-C ends the whole run, and no short fit is kept
            raise KeyboardInterrupt
        return tree

    return fit

"""calibrate(): many fits of simulated data, on one machine or a cluster, and where the truth stands among the draws."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from psymech import __version__, names
from psymech.calibration.fitting import ERROR, OK, Fit, Job, Settings, fitter, identity, simulate_and_fit
from psymech.calibration.quantities import Plan, make_plan
from psymech.calibration.responses import causal_order
from psymech.calibration.store import Journal, journal_of
from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.gaussian.threads import available_cores
from psymech.graph.build import BuiltModel, Engine, build_model
from psymech.inference.versions import library_versions
from psymech.spec.model import ModelSpec

if TYPE_CHECKING:
    from distributed import Client  # pyright: ignore[reportMissingImports]

PRIOR_SBC = "prior_sbc"
TRUTH = "truth"
MEAN, SD = "posterior_mean", "posterior_sd"
SIMULATIONS = "simulations"
SIMULATION = "simulation"
ATTR_RANKED = "ranked_draws"
ATTR_TRUTH = "fixed_truth"
_ACCEPT = {"collapsed": 0.8, "explicit": 0.95}
_SHOW_SECONDS = 5.0


def calibrate(
    spec: ModelSpec,
    data: SessionData,
    *,
    simulations: int = 300,
    seed: int,
    engine: Engine = "auto",
    draws: int = 1000,
    tune: int = 500,
    chains: int = 2,
    thinned: int = 99,
    target_accept: float | None = None,
    effects: int | Mapping[str, int] = 2,
    truth: Mapping[str, float] | None = None,
    fresh_priors: bool = False,
    max_r_hat: float = 1.02,
    max_divergent: float = 0.01,
    workers: int | None = None,
    client: "Client | None" = None,
    store: str | Path | None = None,
    fit: Fit | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    r"""Fit data simulated from a specification's own priors, and rank the true values among the draws.

    For each simulation, with the predictors, nesting and missing cells of `data`,

    .. math:: \tilde\theta \sim p(\theta),\quad \tilde y \sim p(y \mid \tilde\theta),\quad
        \theta_1, \dots, \theta_L \sim p(\theta \mid \tilde y),\quad
        r = \#\{\ell : f(\theta_\ell, \tilde y) < f(\tilde\theta, \tilde y)\}

    and the rank r of every quantity f is uniform on 0, ..., L where model, likelihood and sampler agree (Cook, Gelman &
    Rubin 2006; Talts et al. 2018). f runs over all parameters, a few random effects, the therapists' share of variance,
    the indirect effects of a mediation model, and the log likelihood of the rows, given the random effects and with
    them integrated out, without which a fit that ignores part of the data would pass (Modrák et al. 2023).

    Responses are drawn by a simulator, and log likelihoods computed from written-out covariances, that share nothing
    with the engines. Each fit goes the library's own way: on the collapsed engine :func:`psymech.sample` with compiled
    code that all fits share, on the explicit graph a model compiled once and given new data.

    Parameters
    ----------
    spec, data
        Model and table. The outcomes of the table set the scale of default priors, and are replaced otherwise.
    simulations
        Number of simulations.
    seed
        Simulation number k depends on the seed and k alone: more simulations add to those that are there.
    engine
        As in :func:`psymech.build_model`.
    draws, tune, chains, target_accept
        Of each fit, as in :func:`psymech.sample`. Where `target_accept` is not given, the collapsed engine accepts
        0.8, the explicit graph 0.95.
    thinned
        L, evenly spaced draws among which the truth is ranked; L + 1 should have many divisors.
    effects
        Units a level whose random effects are ranked, for all levels or by level.
    truth
        Parameters that have the same true value in every simulation instead of being drawn, by name:
        ``{"sd_therapist": 0.0, "beta[time]": -0.5}``. Ranks are then not uniform, and :func:`psymech.coverage`
        is what to look at.
    fresh_priors
        Choose default priors anew for each simulated data set, as an analyst would, instead of keeping those of
        `data`. For `truth`; not on the explicit engine.
    max_r_hat, max_divergent
        A fit counts as failed whose R-hat or share of divergences is larger, or whose smallest effective sample size
        is below half of `thinned`. Its ranks are kept: to leave out fits that are hard would bias the rest. A fit
        that raises an error fails too, and has no ranks. ``max_r_hat=inf`` is for draws that need no such check.
    workers
        Fits at once on this machine; by default one a processor.
    client
        A ``distributed.Client``: the fits run on its cluster (extra ``psymech[cluster]``).
    store
        Folder in which each finished fit is kept. A run that was stopped or killed goes on there with the same call;
        while it lasts, no other process may have the folder.
    fit
        Fits otherwise: a function of a built model and a seed that returns a tree.
    progressbar
        Tell how many fits are done.

    Returns
    -------
    DataTree
        ``prior_sbc``: (r + 1/2) / (L + 1) of every quantity, dims (chain, draw, ...) with one draw a simulation, as
        ``arviz.plot_ecdf_pit(result)`` reads it. ``truth``, ``posterior_mean``, ``posterior_sd``: the same
        variables. ``simulations``: status (``ok``, ``unreliable``, ``error``), message, R-hat, effective sample size,
        share of divergences and seconds of every simulation, failed ones included. :func:`psymech.check_calibration`
        and :func:`psymech.coverage` read it.

    Raises
    ------
    SpecError
        A number that is not above zero, `truth` that names no parameter, or a model for which there is no simulator.
    DataError
        `store` holds another run, or is in use by another process.

    References
    ----------
    Cook, Gelman & Rubin (2006), doi:10.1198/106186006X136976; Talts, Betancourt, Simpson, Vehtari & Gelman (2018),
    arXiv:1804.06788; Modrák et al. (2023), doi:10.1214/23-BA1404.

    Examples
    --------
    >>> import psymech as psm
    >>> spec = psm.growth("y", random={"patient": []})
    >>> data = psm.simulate(spec, sizes=psm.Sizes(therapists=6, patients=4, sessions=5), seed=1).data()
    >>> result = psm.calibrate(spec, data, simulations=2, seed=1, progressbar=False)
    >>> result["prior_sbc"].dataset["u_therapist"].dims
    ('chain', 'draw', 'therapist', 'therapist_term')
    """
    numbers = {"simulations": simulations, "draws": draws, "tune": tune, "chains": chains, "thinned": thinned}
    for argument, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise SpecError(f"{argument}: expected a whole number above zero, found {value!r}.")
    if thinned > draws * chains:
        raise SpecError(f"thinned: {thinned} draws cannot be picked from {chains} chains of {draws}.")
    built = build_model(spec, data, engine)
    if fresh_priors and built.engine == "explicit" and fit is None:
        raise SpecError("fresh_priors=True would compile the explicit graph for every simulation. Leave it out.")
    causal_order(built.design)
    settings = Settings(
        draws=int(draws),
        tune=int(tune),
        chains=int(chains),
        thinned=int(thinned),
        target_accept=_ACCEPT[built.engine] if target_accept is None else target_accept,
        max_r_hat=max_r_hat,
        min_ess=thinned / 2,
        max_divergent=max_divergent,
        fresh_priors=fresh_priors,
        truth=tuple(sorted((truth or {}).items())),
    )
    job = make_job(built, data, settings, seed=int(seed), effects=effects, fit=fit)
    kept = nullcontext() if store is None else journal_of(store, json.loads(job.key))
    with kept as journal:
        records = _run(job, int(simulations), journal, workers, client, progressbar)
    return assemble_result(job, records)


def _run(
    job: Job,
    simulations: int,
    journal: Journal | None,
    workers: int | None,
    client: "Client | None",
    progressbar: bool,
) -> list[dict[str, Any]]:
    """Return the records of all simulations, those that the journal holds and those still to be made."""
    records = {} if journal is None else {k: r for k, r in journal.finished().items() if k < simulations}
    todo = [k for k in range(simulations) if k not in records]
    progress = _Progress(simulations, len(records), shown=progressbar)
    made = _on_cluster(job, todo, client) if client is not None else _by_threads(job, todo, workers)
    for record in made:
        if journal is not None:
            journal.add(record)
        records[int(record["simulation"])] = record
        progress.count(record)
    return [records[k] for k in sorted(records)]


def make_job(
    built: BuiltModel,
    data: SessionData,
    settings: Settings,
    *,
    seed: int,
    effects: int | Mapping[str, int] = 2,
    fit: Fit | None = None,
) -> Job:
    """Return the job of a run; its key says what the run is."""
    plan = make_plan(built.spec, built.design, effects=effects)
    what = identity(built, settings, seed) | {"quantities": plan.entries}
    what |= {"fit": "psymech" if fit is None else getattr(fit, "__qualname__", type(fit).__qualname__)}
    return Job(built, data, plan, settings, seed, fit, json.dumps(what, sort_keys=True))


def _by_threads(job: Job, todo: Sequence[int], workers: int | None) -> Iterator[dict[str, Any]]:
    """Fits by threads of this process, which share compiled code; samplers let go of Python's lock."""
    if not todo:
        return
    n = workers or available_cores()
    fitter(job)
    first, *rest = todo
    yield simulate_and_fit(job, first)  # compiles what is compiled at the first call
    with ThreadPoolExecutor(n) as pool:
        pending = set()
        try:
            for number in rest:
                pending.add(pool.submit(simulate_and_fit, job, number))
                if len(pending) >= 2 * n:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        finally:
            for each in pending:
                each.cancel()


def _on_cluster(job: Job, todo: Sequence[int], client: "Client") -> Iterator[dict[str, Any]]:
    from distributed import as_completed  # pyright: ignore[reportMissingImports]

    if not todo:
        return
    everywhere = client.scatter(job, broadcast=True, hash=False)
    futures = client.map(_task, list(todo), job=everywhere, pure=False)
    for future in as_completed(futures):
        yield future.result()


def _task(number: int, job: Job) -> dict[str, Any]:
    return simulate_and_fit(job, number)


def assemble_result(job: Job, records: Sequence[Mapping[str, Any]]) -> xr.DataTree:
    """Return the tree of a run from its records."""
    usable = [r for r in records if "rank" in r and r["status"] != ERROR]
    L = job.settings.thinned
    pit = (_stack(job.plan, usable, "rank") + 0.5) / (L + 1)
    groups = {
        PRIOR_SBC: _group(job.plan, pit, usable),
        TRUTH: _group(job.plan, _stack(job.plan, usable, "truth"), usable),
        MEAN: _group(job.plan, _stack(job.plan, usable, "mean"), usable),
        SD: _group(job.plan, _stack(job.plan, usable, "sd"), usable),
        SIMULATIONS: _simulations(records),
    }
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = {
        names.ATTR_VERSION: __version__,
        names.ATTR_SPEC: job.built.spec.to_json(),
        names.ATTR_ENGINE: job.built.engine,
        names.ATTR_SEED: job.seed,
        names.ATTR_LIBRARIES: json.dumps(library_versions()),
        ATTR_RANKED: L,
        ATTR_TRUTH: json.dumps(dict(job.settings.truth)),
    }
    return tree


def _stack(plan: Plan, records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([r[key] for r in records], dtype=float).reshape(len(records), len(plan.entries))


def _group(plan: Plan, values: np.ndarray, records: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    variables, coords = {}, {}
    start = 0
    for q in plan.quantities:
        part = values[:, start : start + q.size].reshape(1, len(values), *q.shape)
        variables[q.name] = ((*names.SAMPLE_DIMS, *q.dims), part)
        coords |= {dim: list(labels) for dim, labels in zip(q.dims, q.labels, strict=True)}
        start += q.size
    coords |= {names.CHAIN: [0], names.DRAW: [int(r["simulation"]) for r in records]}
    return xr.Dataset(variables, coords=coords)


def _simulations(records: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    dim = (SIMULATION,)

    def numbers(key: str) -> tuple[tuple[str], np.ndarray]:
        return dim, np.array([float(r.get(key, np.nan)) for r in records])

    def texts(key: str) -> tuple[tuple[str], np.ndarray]:
        return dim, np.array([str(r.get(key, "")) for r in records], dtype=object)

    return xr.Dataset(
        {
            "status": texts("status"),
            "message": texts("message"),
            "r_hat": numbers("r_hat"),
            "ess": numbers("ess"),
            "divergent": numbers("divergent"),
            "seconds": numbers("seconds"),
        },
        coords={SIMULATION: [int(r["simulation"]) for r in records]},
    )


def calibration_failures(result: xr.DataTree) -> list[tuple[int, str, str]]:
    """Return number, status and message of each simulation of a run whose fit failed.

    Parameters
    ----------
    result
        From :func:`calibrate`.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.calibration_failures(result)  # doctest: +SKIP
    [(17, 'unreliable', 'R-hat 1.034')]
    """
    table = result[SIMULATIONS].dataset
    rows = zip(table[SIMULATION].values.tolist(), table["status"].values, table["message"].values, strict=True)
    return [(int(k), str(status), str(message)) for k, status, message in rows if status != OK]


class _Progress:
    """A line on standard error now and then: fits done, fits that failed, time left."""

    def __init__(self, total: int, found: int, *, shown: bool) -> None:
        self._total, self._done, self._found, self._failed = total, found, found, 0
        self._shown = shown
        self._begin = self._told = time.monotonic()
        if found:
            self._tell(f"{found} of {total} fits were there already")

    def count(self, record: Mapping[str, Any]) -> None:
        self._done += 1
        self._failed += record["status"] != OK
        now = time.monotonic()
        if now - self._told > _SHOW_SECONDS or self._done == self._total:
            self._told = now
            left = (now - self._begin) / (self._done - self._found) * (self._total - self._done)
            self._tell(f"{self._done} of {self._total} fits, {self._failed} failed, about {left:.0f} s left")

    def _tell(self, text: str) -> None:
        if self._shown:
            print(f"psymech: {text}", file=sys.stderr, flush=True)

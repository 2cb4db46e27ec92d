"""Running a sampler on a PyMC model: one shape of result from four samplers."""

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech.inference.arithmetic import strict_arithmetic
from psymech.inference.chains import Drawn, Keeper, RunOptions, sample_chains
from psymech.inference.stages import Stages

if TYPE_CHECKING:
    import pymc as pm

Sampler = Literal["nutpie", "pymc", "numpyro", "blackjax"]


_THREADED = ("jax", "polars")
_DEPTH = {"pymc": "max_treedepth", "numpyro": "max_tree_depth", "blackjax": "max_num_doublings"}


def run_sampler(
    model: "pm.Model",
    sampler: Sampler,
    options: RunOptions,
    stages: Stages,
    keep: Iterable[str],
    keeper: Keeper | None = None,
) -> Drawn:
    """Sample a PyMC model and return the variables in `keep` and the statistics, each (chain, draw, ...)."""
    wanted = [name for name in keep if name in model.named_vars]
    if sampler == "nutpie":
        return _nutpie(model, options, stages, wanted, keeper)
    tree = _pymc(model, sampler, options, stages, wanted)
    posterior = tree["posterior"].dataset
    values = {name: posterior[name].transpose("chain", "draw", ...).values for name in wanted}
    stats = statistics(tree)
    if "tree_depth" in stats:  # the samplers on JAX do not say whether they were cut short
        stats.setdefault("reached_max_treedepth", stats["tree_depth"] >= options.max_treedepth)
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]  # fewer than asked for after Ctrl-C
    made = tuple(draws if k < chains else 0 for k in range(options.chains))
    return Drawn(values, stats, made, tuple(range(chains)))


def statistics(tree: xr.DataTree) -> dict[str, NDArray]:
    """Sampler statistics that are one number a draw."""
    group = tree["sample_stats"].dataset
    return {str(k): v.transpose("chain", "draw").values for k, v in group.items() if set(v.dims) == {"chain", "draw"}}


def compile_model(model: "pm.Model", wanted: list[str]) -> Any:
    """Compile a PyMC model for nutpie, to the same numbers in every process; `wanted` are the variables to keep."""
    import nutpie

    with strict_arithmetic():
        return nutpie.compile_pymc_model(model, var_names=wanted)


def _nutpie(model: "pm.Model", options: RunOptions, stages: Stages, wanted: list[str], keeper: Keeper | None) -> Drawn:
    with stages.stage("compile", "compiling the model (the longest silence; faster the second time)"):
        compiled = compile_model(model, wanted)
    drawn = sample_nutpie(compiled, options, stages, keeper)
    return replace(drawn, values={name: drawn.values[name] for name in wanted})


def sample_nutpie(compiled: Any, options: RunOptions, stages: Stages, keeper: Keeper | None = None) -> Drawn:
    """Run nutpie on a compiled model."""
    with stages.stage("sampling", f"sampling {options.chains} chains with nutpie"):
        return sample_chains(compiled, options, stages, keeper)


def _pymc(model: "pm.Model", sampler: Sampler, options: RunOptions, stages: Stages, wanted: list[str]) -> xr.DataTree:
    import pymc as pm

    nuts: dict[str, object] = {"target_accept": options.target_accept, _DEPTH[sampler]: options.max_treedepth}
    if sampler in ("numpyro", "blackjax"):
        nuts["chain_method"] = "vectorized"  # one device runs them one after another otherwise
    stages.tell(f"compiling and sampling {options.chains} chains with {sampler} ...")
    start = time.perf_counter()
    with strict_arithmetic():
        tree = pm.sample(
            options.draws,
            tune=options.tune,
            chains=options.chains,
            cores=_processes(sampler, options),
            random_seed=options.seed,
            nuts_sampler=sampler,
            nuts=nuts,
            var_names=wanted,
            compute_convergence_checks=False,
            progressbar=options.progressbar and sampler != "blackjax",
            quiet=not options.progressbar,
            model=model,
        )
    total = time.perf_counter() - start
    sampling = float(tree["posterior"].attrs.get("sampling_time", np.nan))
    stages.seconds["sampling_seconds"] = sampling
    stages.seconds["compile_seconds"] = total - sampling
    return tree


def _processes(sampler: Sampler, options: RunOptions) -> int:
    """Chains that PyMC's sampler runs at once: one where a forked process could inherit a lock that a thread holds.

    Starting fresh processes instead would run a user's unguarded script again in each of them.
    """
    if sampler == "pymc" and any(name in sys.modules for name in _THREADED):
        return 1
    return options.cores

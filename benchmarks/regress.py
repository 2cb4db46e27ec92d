"""One revision's share of the regression benchmark: the psymech on the path, its figures as JSON.

Run by compare.py. Uses what has been in psymech from its first version on; what a revision lacks is left out.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import designs
import numpy as np
from measures import CpuClock, quality

CALLS = 400


def figures(size: designs.Size, seed: int, *, explicit: bool) -> dict[str, float]:
    """Seconds of the stages, and effective draws per CPU second."""
    import psymech as psm
    from psymech.inference.tree import assemble_tree

    begin = time.perf_counter()
    spec, frame = designs.specification(), designs.table(size, seed)
    data = designs.session_data(frame)
    built = psm.build_model(spec, data, engine="collapsed")
    out = {"check and build s": time.perf_counter() - begin}
    with CpuClock() as clock:
        tree = psm.sample(built, draws=500, tune=500, chains=2, cores=1, seed=seed, progressbar=False)
    posterior = tree["posterior"].to_dataset()
    draws = {str(name): posterior[name].values for name in posterior}
    out["load or compile s"] = float(tree.attrs["compile_seconds"])
    out["draw s"] = float(tree.attrs["sampling_seconds"])
    out["recover s"] = float(tree.attrs["recover_seconds"])
    ess = quality(draws, {})["min_ess"]
    out["ESS per CPU s"] = ess / clock.in_last(out["draw s"] + out["recover s"])
    steps = int(tree["sample_stats"]["n_steps"].values.sum())
    out["gradients per effective draw"] = steps / ess
    stats = {name: tree["sample_stats"][name].values for name in ("diverging", "n_steps")}
    out["convert ms"] = 1e3 * median(
        lambda: assemble_tree(draws, stats, spec=built.spec, design=built.design, attrs={}), 20
    )
    out["collapsed gradient us"] = 1e6 * collapsed_gradient(built)
    if explicit:
        out |= explicit_gradient(psm.build_model(spec, data, engine="explicit"))
    return out


def median(action: Callable[[], Any], calls: int) -> float:
    """Median seconds of CPU time of a call."""
    action()
    times = []
    for _ in range(calls):
        begin = time.process_time_ns()
        action()
        times.append((time.process_time_ns() - begin) / 1e9)
    return float(np.median(times))


def collapsed_gradient(built: Any) -> float:
    """Seconds of one value and gradient."""
    from psymech.graph.crossing import make_crossing
    from psymech.inference.collapsed import design_target, starting_points

    target = design_target(built.design, built.priors, make_crossing(built.design, built.priors))
    point = starting_points(target, built.design, built.priors)(1)
    return median(lambda: target.value_and_grad(point), CALLS)


def explicit_gradient(built: Any) -> dict[str, float]:
    """Seconds of compiling for nutpie and microseconds of one value and gradient of the explicit graph."""
    import ctypes

    import nutpie

    begin = time.perf_counter()
    compiled: Any = nutpie.compile_pymc_model(built.model)
    seconds = time.perf_counter() - begin
    n = compiled.n_dim
    x, gradient, value = np.random.default_rng(1).normal(size=n) * 0.3, np.zeros(n), np.zeros(1)
    pointer = ctypes.POINTER(ctypes.c_double)
    places = [array.ctypes.data_as(pointer) for array in (x, gradient, value)]
    run, data = compiled.compiled_logp_func.ctypes, compiled.user_data.ctypes.data
    if run(n, *places, data) != 0:
        raise RuntimeError("the explicit graph's density is not finite at the point of the benchmark")
    return {"explicit compile s": seconds, "explicit gradient us": 1e6 * median(lambda: run(n, *places, data), CALLS)}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(json.dumps(figures(designs.SIZES[asked["size"]], asked["seed"], explicit=asked["explicit"])))

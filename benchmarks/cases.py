"""One case of psymech, in a process of its own: takes its options as JSON, prints its figures as JSON.

Run by harness.py. Wall clock and CPU time are of the stage named; peak memory is of the whole process with its
children.
"""

import json
import sys
import time
import warnings
from typing import Any

START = time.perf_counter()

import designs  # noqa: E402
import numpy as np  # noqa: E402
from measures import CpuClock, peak_mebibytes, quality, rates  # noqa: E402

SECONDS = ("compile_seconds", "sampling_seconds", "recover_seconds")


def fit(options: dict[str, Any]) -> dict[str, Any]:
    """Time psymech: one model, one engine, one sampler."""
    import psymech as psm

    model = options["model"]
    data = designs.session_data(designs.table(designs.SIZES[options["size"]], options["seed"], model))
    numbers = {name: options[name] for name in ("draws", "tune", "chains")}
    begin = time.perf_counter()
    with CpuClock() as clock:
        built = psm.build_model(designs.specification(model), data, engine=options["engine"])
        if options["sampler"] == "nutpie jax":
            found, seconds, stats = nutpie_on_jax(built, numbers, options)
        else:
            tree = psm.sample(
                built,
                **numbers,
                seed=options.get("sampler_seed", options["seed"]),
                sampler=options["sampler"],
                progressbar=False,
            )
            posterior = tree["posterior"].to_dataset()
            found = {str(name): posterior[name].values for name in posterior}
            seconds = {key: float(tree.attrs.get(key, 0.0)) for key in SECONDS}
            stats = {name: tree["sample_stats"][name].values for name in tree["sample_stats"].data_vars}
    total = time.perf_counter() - begin
    figures = quality(found, labels(built.design))
    figures["divergences"] = int(stats["diverging"].sum())
    figures["cpu_seconds"] = clock.in_last(seconds["sampling_seconds"] + seconds["recover_seconds"])
    figures["gradients_after_warmup"] = int(stats["n_steps"].sum()) if "n_steps" in stats else None
    return rates(seconds | figures | {"total_seconds": total} | accelerator(options))


def labels(design: Any) -> dict[str, list[str]]:
    """Names of the entries of each compared variable."""
    names = {f"sd_{level.level}": list(level.terms) for level in design.levels}
    return names | {"beta": list(design.terms), "sigma": list(design.sd_labels)}


def nutpie_on_jax(built: Any, numbers: dict[str, int], options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Sample with nutpie on code compiled by JAX, which psymech itself does not offer."""
    import nutpie

    import psymech.graph.ops_jax  # noqa: F401 - registers the collapsed operators with JAX
    from psymech import names
    from psymech.graph.crossing import make_crossing
    from psymech.inference.collapsed import recover_effects

    seconds = dict.fromkeys(SECONDS, 0.0)
    begin = time.perf_counter()
    design = built.design
    keep = [names.SIGMA, names.BETA]
    for level in design.levels:
        keep += [names.sd(level.level), names.corr(level.level), names.effect(level.level)]
    wanted = [name for name in keep if name in built.model.named_vars]
    compiled = nutpie.compile_pymc_model(built.model, backend="jax", gradient_backend="jax", var_names=wanted)
    seconds["compile_seconds"] = time.perf_counter() - begin
    begin = time.perf_counter()
    accept = 0.8 if built.engine == "collapsed" else 0.9  # psymech's defaults
    tree = nutpie.sample(
        compiled, **numbers, seed=options["seed"], target_accept=accept, save_warmup=False, progress_bar=False
    )
    seconds["sampling_seconds"] = time.perf_counter() - begin
    found = {name: tree["posterior"][name].values for name in wanted}
    if built.engine == "collapsed":
        begin = time.perf_counter()
        found |= recover_effects(design, make_crossing(design, built.priors), found, seed=options["seed"])
        seconds["recover_seconds"] = time.perf_counter() - begin
    return found, seconds, {name: tree["sample_stats"][name].values for name in ("diverging", "n_steps")}


def accelerator(options: dict[str, Any]) -> dict[str, Any]:
    """The device that JAX used, and its peak memory where it tells."""
    if "jax" not in sys.modules or options["sampler"] in ("nutpie", "pymc"):
        return {}
    import jax

    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {"jax_device": device.device_kind} | ({} if peak is None else {"device_mebibytes": peak / 2**20})


def gradient(options: dict[str, Any]) -> dict[str, Any]:
    """Time one value and gradient of the collapsed engine on cross-products of a made-up design."""
    from kernel import call, median_cpu_seconds
    from kernel import design as made_up

    from psymech.gaussian.kernels_numba import bind

    patients, therapists = options["patients"], options["therapists"]
    caseloads = np.full(therapists, patients // therapists)
    caseloads[: patients - caseloads.sum()] += 1
    cross = made_up(caseloads, options["sessions"], q=options["columns"])
    run = call(bind(cross, integrate=True))
    before = peak_mebibytes()
    begin = time.perf_counter()
    run()
    first = time.perf_counter() - begin
    seconds, calls = median_cpu_seconds(run)
    return {
        "gradient_seconds": seconds,
        "calls": calls,
        "first_call_seconds": first,
        "rows": patients * options["sessions"],
        "mebibytes_with_table": before,
    }


def everyday(options: dict[str, Any]) -> dict[str, Any]:
    """Time ``psm.fit`` from a table in memory, as users call it, code compiled before."""
    import psymech as psm

    size = designs.Size(*options["shape"])
    frame = designs.table(size, options["seed"])
    begin = time.perf_counter()
    data = designs.session_data(frame)
    checked = time.perf_counter()
    tree = psm.fit(
        designs.specification(),
        data,
        draws=options["draws"],
        tune=options["tune"],
        seed=options["seed"],
        progressbar=False,
        effects=["therapist"],
    )
    end = time.perf_counter()
    steps = int(tree["sample_stats"]["n_steps"].values.sum())
    seconds = {key: float(tree.attrs.get(key, 0.0)) for key in SECONDS}
    return seconds | {
        "check_table_seconds": checked - begin,
        "total_seconds": end - begin,
        "rows": size.rows,
        "gradients_after_warmup": steps,
        "peak_mebibytes": peak_mebibytes(),
    }


def import_psymech(options: dict[str, Any]) -> dict[str, Any]:
    """Time ``import psymech``, and then the first use of the samplers' libraries."""
    begin = time.perf_counter()
    import psymech as psm

    imported = time.perf_counter()
    _ = psm.fit
    return {"import_seconds": imported - begin, "first_use_seconds": time.perf_counter() - imported}


def first_fit(options: dict[str, Any]) -> dict[str, Any]:
    """Time a newcomer's first fit, from the start of the process: growth in the shipped study."""
    import psymech as psm

    spec, data = psm.growth("phq9"), psm.load_example("process_study")
    built = psm.build_model(spec, data)
    tree = psm.sample(built, draws=options["draws"], tune=options["tune"], seed=options["seed"], progressbar=False)
    end = time.perf_counter()
    return {
        "engine": built.engine,
        "from_start_seconds": end - START,
        **{name: float(tree.attrs[name]) for name in SECONDS if name in tree.attrs},
        "peak_mebibytes": peak_mebibytes(),
    }


CASES = {
    "fit": fit,
    "gradient": gradient,
    "everyday": everyday,
    "import": import_psymech,
    "first_fit": first_fit,
}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sampling warnings are figures here
        print(json.dumps(CASES[asked["case"]](asked)))

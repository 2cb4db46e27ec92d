"""One case of the benchmark, in a process of its own: takes its options as JSON, prints its figures as JSON.

Run by run.py. Wall clock and CPU time are of the stage named; peak memory is of the whole process with its children.
"""

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

START = time.perf_counter()
HERE = Path(__file__).resolve().parent
CLOCK_SECONDS = 0.05
MEBIBYTE = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss: bytes there, kibibytes elsewhere
MEASURED = ("sd_patient", "sd_therapist", "beta", "u_therapist", "sigma")


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_mebibytes() -> float:
    """Peak memory of this process or of its largest child, whichever is larger."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) / MEBIBYTE


class CpuClock:
    """CPU time used so far, noted every few hundredths of a second, so that a stage's share can be read off later."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, float]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.is_set():
            self.notes.append((time.perf_counter(), cpu_seconds()))
            self.stop.wait(CLOCK_SECONDS)

    def __enter__(self) -> "CpuClock":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.notes.append((time.perf_counter(), cpu_seconds()))

    def in_last(self, seconds: float) -> float:
        """CPU time used in the last seconds of wall clock."""
        begin = self.notes[-1][0] - seconds
        before = [used for at, used in self.notes if at <= begin]
        return self.notes[-1][1] - (before[-1] if before else self.notes[0][1])


def quality(posterior: Any, divergences: int) -> dict[str, Any]:
    """Smallest effective sample sizes and largest R-hat over the SDs, fixed effects and therapist effects."""
    import arviz as az

    draws = posterior[[name for name in MEASURED if name in posterior]]
    out: dict[str, Any] = {"divergences": divergences}
    for method in ("bulk", "tail"):
        values = az.ess(draws, method=method)
        by_variable = {str(name): float(values[name].min()) for name in values.data_vars}
        out[f"min_ess_{method}"] = min(by_variable.values())
        out[f"min_ess_{method}_by_variable"] = by_variable
    rhat = az.rhat(draws)
    out["max_rhat"] = max(float(rhat[name].max()) for name in rhat.data_vars)
    out["min_ess"] = min(out["min_ess_bulk"], out["min_ess_tail"])
    return out


def rates(result: dict[str, Any]) -> dict[str, Any]:
    """Add effective draws per second: of drawing alone, of CPU time, and of everything from building on."""
    drawing = result["sampling_seconds"] + result["recover_seconds"]
    return result | {
        "min_ess_per_second": result["min_ess"] / drawing,
        "min_ess_per_cpu_second": result["min_ess"] / result["cpu_seconds"],
        "min_ess_per_second_with_compilation": result["min_ess"] / result["total_seconds"],
        "peak_mebibytes": peak_mebibytes(),
    }


def fit(options: dict[str, Any]) -> dict[str, Any]:
    """Time psymech: one engine, one sampler."""
    import designs

    import psymech as psm

    data = designs.session_data(designs.table(designs.SIZES[options["size"]], options["seed"]))
    begin = time.perf_counter()
    with CpuClock() as clock:
        built = psm.build_model(designs.specification(), data, engine=options["engine"])
        tree = psm.sample(
            built,
            draws=options["draws"],
            tune=options["tune"],
            chains=options["chains"],
            seed=options["seed"],
            sampler=options["sampler"],
            progressbar=False,
        )
    total = time.perf_counter() - begin
    seconds = {
        key: float(tree.attrs.get(key, 0.0)) for key in ("compile_seconds", "sampling_seconds", "recover_seconds")
    }
    found = quality(tree["posterior"].to_dataset(), int(tree["sample_stats"]["diverging"].values.sum()))
    cpu = clock.in_last(seconds["sampling_seconds"] + seconds["recover_seconds"])
    steps = int(tree["sample_stats"]["n_steps"].values.sum()) if "n_steps" in tree["sample_stats"] else None
    return rates(seconds | found | {"cpu_seconds": cpu, "total_seconds": total, "gradients_after_warmup": steps})


def hand_written(options: dict[str, Any]) -> dict[str, Any]:
    """Time the model as users write it, on nutpie with its defaults."""
    import designs
    import hand_written as written
    import nutpie

    from psymech.design import make_design
    from psymech.priors import choose_priors

    data = designs.session_data(designs.table(designs.SIZES[options["size"]], options["seed"]))
    spec = designs.specification()
    design = make_design(spec, data)
    begin = time.perf_counter()
    compiled = nutpie.compile_pymc_model(written.model(design, choose_priors(spec, design)))
    compiled_at = time.perf_counter()
    cpu = cpu_seconds()
    tree = nutpie.sample(
        compiled,
        draws=options["draws"],
        tune=options["tune"],
        chains=options["chains"],
        seed=options["seed"],
        save_warmup=False,
        progress_bar=False,
    )
    end = time.perf_counter()
    seconds = {
        "compile_seconds": compiled_at - begin,
        "sampling_seconds": end - compiled_at,
        "recover_seconds": 0.0,
        "total_seconds": end - begin,
        "cpu_seconds": cpu_seconds() - cpu,
    }
    return rates(seconds | quality(tree["posterior"].to_dataset(), int(tree["sample_stats"]["diverging"].values.sum())))


def lme4(options: dict[str, Any]) -> dict[str, Any]:
    """Time lme4's REML fit."""
    import designs

    frame = designs.table(designs.SIZES[options["size"]], options["seed"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        frame.to_csv(path, index=False, float_format="%.17g")
        done = subprocess.run(["Rscript", str(HERE / "lme4.R"), str(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "Rscript failed")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / MEBIBYTE
    return json.loads(done.stdout.splitlines()[-1]) | {"peak_mebibytes": peak}


def brms(options: dict[str, Any]) -> dict[str, Any]:
    """Time brms on the same table with the same priors (its correlations and SDs take them term by term)."""
    import designs

    from psymech.design import make_design
    from psymech.priors import choose_priors

    frame = designs.table(designs.SIZES[options["size"]], options["seed"])
    spec = designs.specification()
    design = make_design(spec, designs.session_data(frame))
    priors = choose_priors(spec, design)
    rows = ["prior,class,coef,group"]
    for label, prior in zip(design.terms, priors.beta, strict=True):
        where = "Intercept,," if label == "Intercept" else f"b,{label},"
        rows.append(f'"normal({prior.mean:.8g}, {prior.sd:.8g})",{where}')
    for level in design.levels:
        for label, prior in zip(level.terms, priors.sd[level.level], strict=True):
            rows.append(f'"normal(0, {prior.sd:.8g})",sd,{label},{level.level}')
    rows += [f'"normal(0, {priors.sigma[0].sd:.8g})",sigma,,', '"lkj(2)",cor,,']
    with tempfile.TemporaryDirectory() as folder:
        table, given = Path(folder) / "table.csv", Path(folder) / "priors.csv"
        frame.to_csv(table, index=False, float_format="%.17g")
        given.write_text("\n".join(rows) + "\n")
        numbers = [str(options[key]) for key in ("draws", "tune", "chains")] + ["2", str(options["seed"])]
        command = ["Rscript", str(HERE / "brms.R"), str(table), str(given), *numbers]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "Rscript failed")
    found = json.loads(done.stdout.splitlines()[-1])
    found["min_ess"] = min(found["min_ess_bulk"], found["min_ess_tail"])
    found["min_ess_per_cpu_second"] = found["min_ess"] / found["sampling_cpu_seconds"]
    return found


def growth_of_cost(options: dict[str, Any]) -> dict[str, Any]:
    """Time one value and gradient as sessions per patient grow at equal patients; rounds go through all sizes."""
    import designs
    import numpy as np

    from psymech.design import make_design
    from psymech.graph.crossing import make_crossing
    from psymech.inference.collapsed import design_target, starting_points
    from psymech.priors import choose_priors

    calls = {}
    for sessions in options["sessions"]:
        size = designs.Size(options["therapists"], options["patients"], sessions)
        spec = designs.specification()
        design = make_design(spec, designs.session_data(designs.table(size, options["seed"])))
        priors = choose_priors(spec, design)
        target = design_target(design, priors, make_crossing(design, priors))
        point = starting_points(target, design, priors)(options["seed"])
        value, gradient = target.value_and_grad(point)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        calls[sessions] = (target, point)
    times: dict[int, list[float]] = {sessions: [] for sessions in calls}
    for _ in range(options["rounds"]):
        for sessions, (target, point) in calls.items():
            for _ in range(options["calls"]):
                begin = time.process_time_ns()
                target.value_and_grad(point)
                times[sessions].append((time.process_time_ns() - begin) / 1e3)
    return {
        "patients": options["therapists"] * options["patients"],
        "microseconds": {str(sessions): float(np.median(values)) for sessions, values in times.items()},
        "calls": options["rounds"] * options["calls"],
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
        **{
            key: float(tree.attrs[key])
            for key in ("compile_seconds", "sampling_seconds", "recover_seconds")
            if key in tree.attrs
        },
        "peak_mebibytes": peak_mebibytes(),
    }


CASES = {
    "fit": fit,
    "hand_written": hand_written,
    "lme4": lme4,
    "brms": brms,
    "growth_of_cost": growth_of_cost,
    "import": import_psymech,
    "first_fit": first_fit,
}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sampling warnings are figures here
        print(json.dumps(CASES[asked["case"]](asked)))

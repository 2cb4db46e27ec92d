"""One case of another program, in a process of its own: the same table, model and priors as psymech's.

Bambi and pathmc run in an environment of their own (`in_rivals.py`), the R programs through Rscript. Every posterior
is summarised by the same code (`measures.py`).
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import designs
import numpy as np
from cases import labels
from measures import MEBIBYTE, cpu_seconds, quality, rates

HERE = Path(__file__).resolve().parent
CORES = 2
GRACE = 8.0  # seconds before the limit in which a program that is not done is stopped and what it reached is noted


def problem(options: dict[str, Any]) -> tuple[Any, Any]:
    """The matrices and priors of a case."""
    return designs.design_and_priors(designs.SIZES[options["size"]], options["seed"], options["model"])


def pymc_by_hand(options: dict[str, Any]) -> dict[str, Any]:
    """Time the hand-written PyMC model on nutpie with its defaults."""
    import hand_written
    import nutpie

    design, priors = problem(options)
    begin = time.perf_counter()
    compiled = nutpie.compile_pymc_model(hand_written.pymc_model(design, priors))
    compiled_at, cpu = time.perf_counter(), cpu_seconds()
    numbers = {name: options[name] for name in ("draws", "tune", "chains")}
    tree = nutpie.sample(
        compiled, **numbers, seed=options["sampler_seed"], cores=CORES, save_warmup=False, progress_bar=False
    )
    end, used = time.perf_counter(), cpu_seconds() - cpu
    stats = tree["sample_stats"]
    return rates(
        {
            "compile_seconds": compiled_at - begin,
            "sampling_seconds": end - compiled_at,
            "total_seconds": end - begin,
            "cpu_seconds": used,
            "divergences": int(stats["diverging"].sum()),
            "gradients_after_warmup": int(stats["n_steps"].sum()),
        }
        | quality(in_posterior(tree["posterior"], design), labels(design))
    )


def in_posterior(posterior: Any, design: Any) -> dict[str, np.ndarray]:
    """Draws by canonical name."""
    wanted = ["beta", "sigma", "u_therapist", *(f"sd_{level.level}" for level in design.levels)]
    return {name: np.asarray(posterior[name].values) for name in wanted if name in posterior}


def numpyro_by_hand(options: dict[str, Any]) -> dict[str, Any]:
    """Time the hand-written NumPyro model, chains vectorised."""
    import hand_written
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    numpyro.enable_x64()
    design, priors = problem(options)
    numbers = {
        "num_warmup": options["tune"],
        "num_samples": options["draws"],
        "num_chains": options["chains"],
        "chain_method": "vectorized",
        "progress_bar": False,
    }
    begin, cpu = time.perf_counter(), cpu_seconds()
    sampler = MCMC(NUTS(hand_written.numpyro_model(design, priors)), **numbers)
    sampler.run(jax.random.PRNGKey(options["sampler_seed"]), extra_fields=("diverging", "num_steps"))
    draws = {name: np.asarray(values) for name, values in sampler.get_samples(group_by_chain=True).items()}
    end, used = time.perf_counter(), cpu_seconds() - cpu
    extra = sampler.get_extra_fields()
    wanted = ["beta", "sigma", "u_therapist", *(f"sd_{level.level}" for level in design.levels)]
    return rates(
        {
            "sampling_seconds": end - begin,
            "total_seconds": end - begin,
            "cpu_seconds": used,
            "divergences": int(np.asarray(extra["diverging"]).sum()),
            "gradients_after_warmup": int(np.asarray(extra["num_steps"]).sum()),
        }
        | quality({name: draws[name] for name in wanted if name in draws}, labels(design))
    )


def in_r(script: str, options: dict[str, Any], folder: Path, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """Run an R script and return its lines, or why it did not end and what it had reached."""
    table = designs.table(designs.SIZES[options["size"]], options["seed"], options["model"])
    table.to_csv(folder / "table.csv", index=False, float_format="%.17g")
    command = ["Rscript", str(HERE / script), str(folder), options["model"], *arguments]
    end = time.perf_counter() + options["limit"] - GRACE
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    watch = Progress(end, process)
    lines = watch.read()
    if watch.stopped:
        return lines, {"not_measured": f"not finished in {options['limit']:.0f} s"} | watch.reached() | {
            "limit_seconds": options["limit"]
        }
    if process.wait() != 0:
        raise RuntimeError(next((line for line in reversed(lines) if line.strip()), "Rscript failed"))
    return lines, {}


class Progress:
    """Lines of a program as they come, with the time of Stan's ``Iteration:`` lines; ends it when its time is over."""

    PATTERN = re.compile(r"Chain (\d+):? *Iteration: *(\d+) / (\d+)")

    def __init__(self, end: float, process: "subprocess.Popen[str]") -> None:
        self.end, self.process, self.stopped = end, process, False
        self.seen: dict[int, list[tuple[float, int]]] = {}

    def read(self) -> list[str]:
        """Read until the program ends or its time is over."""
        import threading

        timer = threading.Timer(max(self.end - time.perf_counter(), 0.1), self.stop)
        timer.start()
        lines = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.append(line)
            if found := self.PATTERN.search(line):
                chain, iteration, _ = (int(part) for part in found.groups())
                self.seen.setdefault(chain, []).append((time.perf_counter(), iteration))
        timer.cancel()
        return lines

    def stop(self) -> None:
        """End the program with its children."""
        self.stopped = True
        os.killpg(self.process.pid, signal.SIGKILL)

    def reached(self) -> dict[str, Any]:
        """Iterations of the slowest started chain, and how many a minute."""
        if not self.seen:
            return {"reached_iterations": 0}
        found = {"reached_iterations": min(notes[-1][1] for notes in self.seen.values())}
        paces = [
            60 * (notes[-1][1] - notes[0][1]) / (notes[-1][0] - notes[0][0])
            for notes in self.seen.values()
            if len(notes) > 1
        ]
        found["chains_started"] = len(self.seen)
        return found | ({"iterations_per_minute": min(paces)} if paces else {})


def brms(options: dict[str, Any]) -> dict[str, Any]:
    """Time brms on rstan (its SDs take priors term by term); chains run two at a time."""
    design, priors = problem(options)
    numbers = [str(options[key]) for key in ("draws", "tune", "chains")] + [str(CORES), str(options["sampler_seed"])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "priors.csv").write_text("\n".join(brms_priors(design, priors)) + "\n", encoding="utf-8")
        lines, unfinished = in_r("brms.R", options, folder, *numbers)
        if unfinished:
            return unfinished
        found = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
        names = (folder / "names.txt").read_text(encoding="utf-8").splitlines()
        raw = np.fromfile(folder / "draws.bin").reshape(len(names), options["chains"], options["draws"])
    draws = brms_draws(design, dict(zip(names, raw, strict=True)))
    return rates(found | quality(draws, labels(design)))


def brms_priors(design: Any, priors: Any) -> list[str]:
    """Lines of a CSV: prior, class, coefficient, group, response."""
    rows = ["prior,class,coef,group,resp"]
    for label, prior in zip(design.terms, priors.beta, strict=True):
        response, _, term = label.rpartition("~")
        where = f"Intercept,,,{response}" if term == "Intercept" else f"b,{term},,{response}"
        rows.append(f'"normal({prior.mean:.8g}, {prior.sd:.8g})",{where}')
    for level in design.levels:
        for label, prior in zip(level.terms, priors.sd[level.level], strict=True):
            response, _, term = label.rpartition("~")
            rows.append(f'"normal(0, {prior.sd:.8g})",sd,{term},{level.level},{response}')
        if level.level in priors.corr:
            rows.append(f'"lkj({priors.corr[level.level].eta:g})",cor,,{level.level},')
    several = len(design.sd_labels) > 1
    for label, prior in zip(design.sd_labels, priors.sigma, strict=True):
        rows.append(f'"normal(0, {prior.sd:.8g})",sigma,,,{label if several else ""}')
    return rows


def brms_draws(design: Any, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Map brms's names of variables to the canonical ones."""

    def stacked(names: list[str]) -> np.ndarray:
        return np.stack([draws[name] for name in names], axis=-1)

    def flat(label: str) -> str:
        return label.replace("~", "_")

    several = len(design.sd_labels) > 1
    out = {
        "beta": stacked([f"b_{flat(label)}" for label in design.terms]),
        "sigma": stacked([f"sigma_{label}" if several else "sigma" for label in design.sd_labels]),
    }
    for level in design.levels:
        out[f"sd_{level.level}"] = stacked([f"sd_{level.level}__{flat(label)}" for label in level.terms])
        if level.level == "therapist":
            names = []
            for unit in level.labels:
                for label in level.terms:
                    response, _, term = label.rpartition("~")
                    names.append(f"r_therapist{'__' + response if response else ''}[{unit},{term}]")
            out["u_therapist"] = stacked(names)
    return out


def point_estimate(options: dict[str, Any]) -> dict[str, Any]:
    """Time the REML fit of lme4, or glmmTMB."""
    design, _ = problem(options)
    with tempfile.TemporaryDirectory() as name:
        lines, unfinished = in_r(f"{options['program']}.R", options, Path(name))
    if unfinished:
        return unfinished
    found = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / MEBIBYTE
    estimates = {f"beta[{label}]": found["beta"][label.replace("~", "_")] for label in design.terms}
    for level in design.levels:
        for label in level.terms:
            estimates[f"sd_{level.level}[{label}]"] = found[f"sd_{level.level}"][label.replace("~", "_")]
    kept = {name: found[name] for name in ("wall_seconds", "cpu_seconds", "converged", "singular", "r", "version")}
    return kept | {"point_estimates": estimates, "peak_mebibytes": peak}


def write_problem(options: dict[str, Any]) -> dict[str, Any]:
    """Write the table and the priors for programs of another environment."""
    design, priors = problem(options)
    folder = Path(options["folder"])
    designs.table(designs.SIZES[options["size"]], options["seed"], options["model"]).to_csv(
        folder / "table.csv", index=False, float_format="%.17g"
    )
    given = {
        "labels": labels(design),
        "beta": {label: [p.mean, p.sd] for label, p in zip(design.terms, priors.beta, strict=True)},
        "sd": {
            level.level: {label: p.sd for label, p in zip(level.terms, priors.sd[level.level], strict=True)}
            for level in design.levels
        },
        "sigma": {label: p.sd for label, p in zip(design.sd_labels, priors.sigma, strict=True)},
    }
    (folder / "problem.json").write_text(json.dumps(given), encoding="utf-8")
    return {}


def in_rivals(options: dict[str, Any]) -> dict[str, Any]:
    """Run Bambi or pathmc by the interpreter of their environment."""
    from harness import RIVALS

    with tempfile.TemporaryDirectory() as folder:
        write_problem(options | {"folder": folder})
        done = subprocess.run(
            [str(RIVALS), str(HERE / "in_rivals.py"), json.dumps(options | {"folder": folder})],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["failed"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


CASES = {
    "pymc": pymc_by_hand,
    "numpyro": numpyro_by_hand,
    "brms": brms,
    "lme4": point_estimate,
    "glmmTMB": point_estimate,
    "bambi": in_rivals,
    "pathmc": in_rivals,
}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sampling warnings are figures here
        print(json.dumps(CASES[asked["program"]](asked)))

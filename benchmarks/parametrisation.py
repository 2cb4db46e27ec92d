"""Compare parametrisations and sampler settings of the collapsed engine: effective draws per 1000 gradients.

Run: python benchmarks/parametrisation.py [--out FILE] [--seeds 1 2]. Two tables of 20 therapists x 8 patients x 10
sessions with an intercept and three slopes at both levels: one as the other benchmarks have it, one whose therapists do
not differ. All forms are changes of variables of the same compiled log posterior, with their Jacobians, so that only
the geometry differs. Gradients of the warm-up count.

Forms
-----
signed      SDs are absolute values of normal (Student, Laplace) variables; canonical partial correlations.
            What psymech does.
log         logarithms of the SDs; canonical partial correlations.
cholesky    the packed Cholesky factor of the covariance with logarithms on its diagonal, as PyMC's LKJCholeskyCov.
whitened    signed, moved to the mode and scaled by its curvature.
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import designs
import jax
import jax.numpy as jnp
import numpy as np
import nutpie
import pandas as pd
import xarray as xr
from arviz_stats.sampling_diagnostics import ess, rhat
from nutpie.compiled_pyfunc import from_pyfunc
from scipy.optimize import minimize

import psymech as psm
from psymech import names
from psymech.gaussian.target import Target
from psymech.graph.build import BuiltModel
from psymech.graph.crossing import make_crossing
from psymech.inference.collapsed import design_target, starting_points, unpack
from psymech.inference.direct import POINT, compile_target

CHAINS, DRAWS, TUNE, ACCEPT = 4, 1000, 500, 0.8
SMALLEST_CURVATURE = 1e-2  # of the log posterior; flatter directions are scaled as if they had this much
Form = Callable[[Any], tuple[Any, Any]]  # from free parameters to the target's, and the log of the Jacobian


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A table with the compiled log posterior of its model."""

    name: str
    built: BuiltModel
    target: Target
    start: Callable[[int], np.ndarray]


def problem(name: str, frame: pd.DataFrame) -> Problem:
    built = psm.build_model(designs.specification(), designs.session_data(frame))
    target = design_target(built.design, built.priors, make_crossing(built.design, built.priors))
    return Problem(name, built, target, starting_points(target, built.design, built.priors))


def problems() -> list[Problem]:
    size = designs.SIZES["small"]
    alike = designs.table(designs.Size(1, size.therapists * size.patients, size.sessions), 1)
    alike["therapist"] = alike["patient"] // size.patients  # all were drawn as one therapist's patients
    return [problem("small", designs.table(size, 1)), problem("therapists alike", alike)]


def blocks(target: Target) -> list[tuple[int, int]]:
    """Place and number of the scales of each level."""
    found, k = [], 0
    for q in target.q:
        found.append((k, q))
        k += q + q * (q - 1) // 2
    return found


def log_form(target: Target, z: Any) -> tuple[Any, Any]:
    jacobian = 0.0
    for k, q in blocks(target):
        jacobian += z[k : k + q].sum()
        z = z.at[k : k + q].set(jnp.exp(z[k : k + q]))
    return z, jacobian


def cholesky_form(target: Target, z: Any) -> tuple[Any, Any]:
    """By rows of the factor: ``dL = sd^i dsd dw / w_i`` and ``dw_j = sqrt(rest_j) (1 - r_j^2) / 2 dy_j``."""
    out, jacobian = z, 0.0
    for k, q in blocks(target):
        at, place = k, k + q
        for i in range(q):
            row = z[at : at + i + 1]
            row = row.at[i].set(jnp.exp(row[i]))
            at += i + 1
            sd = jnp.sqrt((row**2).sum())
            w, rest = row / sd, 1.0
            out = out.at[k + i].set(sd)
            jacobian += jnp.log(row[i]) - i * jnp.log(sd) + jnp.log(w[i])
            for j in range(i):
                r = w[j] / jnp.sqrt(rest)
                out = out.at[place].set(2 * jnp.arctanh(r))
                jacobian -= 0.5 * jnp.log(rest) + jnp.log((1 - r**2) / 2)
                rest = rest * (1 - r**2)
                place += 1
    return out, jacobian


def start_of(form: str, target: Target, x: np.ndarray) -> np.ndarray:
    """Free parameters of a point."""
    z = x.copy()
    for k, q in blocks(target):
        if form == "log":
            z[k : k + q] = np.log(x[k : k + q])
        else:
            factor, place = np.zeros((q, q)), k + q
            for i in range(q):
                rest = 1.0
                for j in range(i):
                    factor[i, j] = np.tanh(x[place] / 2) * np.sqrt(rest)
                    rest *= 1 - np.tanh(x[place] / 2) ** 2
                    place += 1
                factor[i, i] = np.sqrt(rest)
            factor *= x[k : k + q, None]
            factor[np.diag_indices(q)] = np.log(np.diag(factor))
            z[k : k + q * (q + 1) // 2] = factor[np.tril_indices(q)]
    return z


def in_python(target: Target, form: Form, start: Callable[[int], np.ndarray]) -> Any:
    """Return a model of the transformed log posterior; slower than the compiled one, with the same gradients."""
    forward = jax.jit(form)

    @jax.jit
    def back(z: Any, x_bar: Any) -> Any:
        return jax.vjp(form, z)[1]((x_bar, jnp.ones(())))[0]

    def logp(z: np.ndarray) -> tuple[float, np.ndarray]:
        x, jacobian = forward(z)
        value, gradient = target.value_and_grad(np.asarray(x))
        return value + float(jacobian), np.asarray(back(z, gradient))

    def expand(z: np.ndarray) -> dict[str, np.ndarray]:
        return {POINT: np.asarray(forward(z)[0])}

    return from_pyfunc(
        target.n,
        lambda: logp,
        lambda *_: expand,
        [np.dtype(np.float64)],
        [(target.n,)],
        [POINT],
        make_initial_point_fn=start,
    )


def check_form(form: Form, start: np.ndarray) -> None:
    """Compare the stated Jacobian with the determinant of the derivative."""
    z = jnp.asarray(start)
    derivative = np.asarray(jax.jacfwd(lambda at: form(at)[0])(z))
    np.testing.assert_allclose(float(form(z)[1]), np.linalg.slogdet(derivative)[1], rtol=1e-9)


def mode(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return the mode and the columns that scale it to unit curvature."""
    target = problem.target
    found = minimize(lambda x: tuple(-part for part in target.value_and_grad(x)), problem.start(0), jac=True).x
    step = 1e-4
    rows = [
        (target.value_and_grad(found + step * e)[1] - target.value_and_grad(found - step * e)[1]) / (2 * step)
        for e in np.eye(target.n)
    ]
    curvature, axes = np.linalg.eigh(-(np.array(rows) + np.array(rows).T) / 2)
    return found, axes / np.sqrt(np.maximum(curvature, SMALLEST_CURVATURE))


def forms(problem: Problem) -> dict[str, Any]:
    """Return nutpie models, one a form."""
    target = problem.target
    models = {"signed": compile_target(target, problem.start)}
    for name, function in (("log", log_form), ("cholesky", cholesky_form)):
        form = partial(function, target)
        check_form(form, start_of(name, target, problem.start(1)))
        models[name] = in_python(
            target, form, lambda seed, name=name: start_of(name, target, np.asarray(problem.start(seed)))
        )
    center, columns = mode(problem)
    models["signed, from the mode"] = compile_target(
        target, lambda seed: center + 0.1 * columns @ np.random.default_rng(seed).normal(size=target.n)
    )
    models["whitened"] = in_python(
        target,
        lambda z: (center + columns @ z, jnp.zeros(())),
        lambda seed: np.random.default_rng(seed).normal(size=target.n),
    )
    return models


def run(problem: Problem, model: Any, *, seed: int, tune: int = TUNE, **settings: Any) -> dict[str, Any]:
    """Sample, and return figures."""
    began = time.process_time()
    tree = nutpie.sample(
        model,
        draws=DRAWS,
        tune=tune,
        chains=CHAINS,
        cores=1,
        seed=seed,
        progress_bar=False,
        save_warmup=True,
        **settings,
    )
    seconds = time.process_time() - began
    steps = [int(tree[group]["n_steps"].sum()) for group in ("sample_stats", "warmup_sample_stats")]
    values = unpack(problem.built.design, problem.target, tree["posterior"][POINT].values)
    smallest, largest = [], []
    for name, value in values.items():
        q = value.shape[-1] if value.ndim > 2 else 1
        corr = name.startswith("corr")
        flat = value[:, :, *np.tril_indices(q, -1)] if corr else value.reshape(*value.shape[:2], -1)
        for each in np.moveaxis(flat, -1, 0):
            methods = ("bulk",) if corr or name == names.SIGMA else ("bulk", "tail")
            draws = xr.DataArray(each, dims=names.SAMPLE_DIMS)
            smallest += [float(ess(draws, sample_dims=list(names.SAMPLE_DIMS), method=method)) for method in methods]
            largest.append(float(rhat(draws, sample_dims=list(names.SAMPLE_DIMS))))
    return {
        "seed": seed,
        "gradients": sum(steps),
        "warm_up_gradients": steps[1],
        "minimum_ess": round(min(smallest), 1),
        "ess_per_1000_gradients": round(1000 * min(smallest) / sum(steps), 2),
        "rhat": round(max(largest), 4),
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "cpu_seconds": round(seconds, 2),
    }


def row(problem: Problem, form: str, settings: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    median = round(statistics.median(each["ess_per_1000_gradients"] for each in runs), 2)
    result = {"table": problem.name, "form": form, **settings, "median_ess_per_1000_gradients": median, "runs": runs}
    print(
        problem.name,
        form,
        settings,
        [(r["ess_per_1000_gradients"], r["rhat"], r["divergences"]) for r in runs],
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "parametrisation.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for each in problems():
        for form, model in forms(each).items():
            settings = {"adaptation": "diag", "target_accept": ACCEPT, "tune": TUNE}
            rows.append(row(each, form, settings, [run(each, model, seed=s, **settings) for s in options.seeds]))
        model = compile_target(each.target, each.start)
        grid = [
            (a, t, TUNE)
            for a in ("diag", "low_rank", "draw_diag")
            for t in (0.7, 0.8, 0.9, 0.95)
            if (a, t) != ("diag", 0.8)
        ]
        grid += [
            ("diag", 0.8, 250),
            ("diag", 0.8, 1000),
            ("low_rank", 0.8, 250),
            ("low_rank", 0.8, 1000),
        ]
        for adaptation, accept, tune in grid:
            settings = {"adaptation": adaptation, "target_accept": accept, "tune": tune}
            rows.append(row(each, "signed", settings, [run(each, model, seed=s, **settings) for s in options.seeds]))
    packages = ("nutpie", "numba", "jax", "numpy", "arviz-stats")
    options.out.parent.mkdir(exist_ok=True)
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {"psymech": psm.__version__} | {name: importlib.metadata.version(name) for name in packages},
        "chains": CHAINS,
        "draws": DRAWS,
        "what": "smallest ESS of SDs (bulk, tail), residual SD (bulk) and correlations (bulk), per 1000 gradients "
        "with warm-up; CPU seconds of forms evaluated in Python (log, cholesky, whitened) say nothing",
        "rows": rows,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

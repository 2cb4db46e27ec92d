"""A fit in closed form for the calibration loop: variances known, fixed and random effects exactly normal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import block_diag

import psymech as psm
from psymech import names
from psymech.calibration.fitting import Fit, Job, Settings
from psymech.calibration.quantities import Plan
from psymech.calibration.run import make_job
from psymech.design import Design
from psymech.graph.build import BuiltModel, build_model

Floats = NDArray[np.float64]
TRUTH = {
    "sd_patient[Intercept]": 1.5,
    "sd_patient[x.within]": 0.7,
    "corr_patient": 0.8,
    "sd_therapist": 0.5,
    "sigma[1]": 0.5,
    "sigma[2]": 1.5,
}


@cache
def table(*, therapists: bool = True, seed: int = 3) -> psm.SessionData:
    """28 patients of 7 therapists, sessions with gaps; `arm` has two residual SDs, `w` is a patient's trait."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(28):
        kept = np.sort(rng.choice(np.arange(1, 9), size=int(rng.integers(6, 8)), replace=False))
        own = rng.normal()
        for session in kept:
            x = 3 + own + 2 * rng.normal()
            rows.append(
                (f"T{patient % 7}", f"P{patient:02d}", session, x, own * 0.3 + 0.5, 1 + patient % 2, rng.normal())
            )
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session", "x", "w", "arm", "y"])
    return psm.SessionData.from_frame(frame, therapist="therapist" if therapists else None)


def spec(*, lag: int = 1) -> psm.ModelSpec:
    return psm.process(
        "y",
        techniques=["x"],
        covariates=["w"],
        interactions=[("time", "x")],
        slopes={"patient": ["x"]},
        lag=lag,
        residual_by="arm",
        priors={"beta[time]": psm.Normal(0.0, 0.3), "beta[w]": psm.Normal(0.0, 0.2), "beta": psm.Normal(0.0, 1.0)},
    )


def settings(*, thinned: int = 19, truth: Mapping[str, float] = TRUTH) -> Settings:
    return Settings(
        draws=thinned,
        tune=1,
        chains=1,
        thinned=thinned,
        target_accept=0.8,
        max_r_hat=np.inf,
        min_ess=0.0,
        max_divergent=1.0,
        fresh_priors=False,
        truth=tuple(sorted(truth.items())),
    )


def job(fit: Fit | None = None, *, seed: int = 11, thinned: int = 19) -> Job:
    """The job of a run whose variances are known: they, and what needs a whole tree, are not ranked."""
    built = build_model(spec(), table(), "explicit")
    made = make_job(built, table(), settings(thinned=thinned), seed=seed, fit=fit or exact)
    varying = tuple(q for q in made.plan.quantities if q.name in VARYING)
    return replace(made, plan=Plan(varying, made.plan.units))


WITHOUT_THERAPISTS = {name: value for name, value in TRUTH.items() if not name.startswith("sd_therapist")}
VARYING = ("beta", "u_patient", "u_therapist", "log_likelihood", "log_marginal")


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the closed form is told: design, prior of the fixed effects, variances."""

    design: Design
    y: Floats
    X: Floats
    Z: tuple[Floats, ...]
    codes: tuple[NDArray[np.int64], ...]
    weight: Floats  # of each row
    prior_mean: Floats
    prior_sd: Floats
    covariance: tuple[Floats, ...]
    sigma: Floats  # of each row


def known(built: BuiltModel) -> Known:
    design = built.design
    covariances = []
    for level in design.levels:
        q = len(level.terms)
        sd = np.array([TRUTH.get(f"sd_{level.level}[{t}]", TRUTH.get(f"sd_{level.level}", 0.0)) for t in level.terms])
        corr = np.full((q, q), TRUTH["corr_patient"])
        np.fill_diagonal(corr, 1.0)
        covariances.append(corr * np.outer(sd, sd))
    sigma = np.array([TRUTH["sigma[1]"], TRUTH["sigma[2]"]])[design.sd_code]
    return Known(
        design=design,
        y=design.y,
        X=design.X,
        Z=tuple(level.Z for level in design.levels),
        codes=tuple(level.code for level in design.levels),
        weight=np.ones(design.n_obs),
        prior_mean=np.array([p.mean for p in built.priors.beta]),
        prior_sd=np.array([p.sd for p in built.priors.beta]),
        covariance=tuple(covariances),
        sigma=sigma,
    )


def draws_of(k: Known, center: Floats, n: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Exact draws of fixed and random effects given everything else."""
    p = k.X.shape[1]
    to_zero = np.eye(p)
    to_zero[0, 1:] = -center[1:]  # the intercept's prior is about the average row
    mean, prior = [to_zero @ k.prior_mean], [to_zero @ np.diag(k.prior_sd**2) @ to_zero.T]
    columns = [k.X]
    for level, Z, code, covariance in zip(k.design.levels, k.Z, k.codes, k.covariance, strict=True):
        q = Z.shape[1]
        A = np.zeros((len(k.y), level.n_units, q))
        A[np.arange(len(k.y)), code] = Z
        columns.append(A.reshape(len(k.y), -1))
        prior.append(np.kron(np.eye(level.n_units), covariance))
        mean.append(np.zeros(level.n_units * q))
    A, m0, P0 = np.hstack(columns), np.concatenate(mean), np.linalg.inv(block_diag(*prior))
    precision = P0 + (A.T * (k.weight / k.sigma**2)) @ A
    centre = np.linalg.solve(precision, P0 @ m0 + A.T @ (k.weight * k.y / k.sigma**2))
    drawn = centre + np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=(len(centre), n))).T
    out = {names.BETA: drawn[:, :p]}
    start = p
    for level, Z in zip(k.design.levels, k.Z, strict=True):
        size = level.n_units * Z.shape[1]
        out[names.effect(level.level)] = drawn[:, start : start + size].reshape(n, level.n_units, Z.shape[1])
        start += size
    return out


Change = Callable[[Known], Known]
Twist = Callable[[dict[str, Floats], Known], dict[str, Floats]]


def fit_with(change: Change | None = None, twist: Twist | None = None, *, draws: int = 19) -> Fit:
    """The closed form, told something wrong (`change`) or misread afterwards (`twist`)."""

    def fit(built: BuiltModel, seed: int) -> xr.DataTree:
        right = known(built)
        k = right if change is None else change(right)
        values = draws_of(k, built.priors.center, draws, np.random.default_rng(seed))
        values = values if twist is None else twist(values, right)
        for level, covariance in zip(built.design.levels, right.covariance, strict=True):
            sd = np.sqrt(np.diag(covariance))
            values[names.sd(level.level)] = np.tile(sd, (draws, 1))
            values[names.corr(level.level)] = np.tile(covariance / np.outer(sd, sd), (draws, 1, 1))
        values[names.SIGMA] = np.tile([TRUTH["sigma[1]"], TRUTH["sigma[2]"]], (draws, 1))
        dims = {name: ("chain", "draw", *(f"{name}_{i}" for i in range(v.ndim - 1))) for name, v in values.items()}
        return xr.DataTree.from_dict(
            {"/posterior": xr.Dataset({name: (dims[name], v[None]) for name, v in values.items()})}
        )

    return fit


exact = fit_with()

"""The sampled posterior beside the exact one of a balanced three-level model, on a grid of its three SDs.

With m patients a therapist and n sessions a patient at the same times, the covariance of the rows has the eigenvalues

    sigma^2,   sigma^2 + n tau_p^2,   sigma^2 + n tau_p^2 + m n tau_t^2

in the strata within patients, between patients and between therapists, so that the likelihood, fixed effects integrated
out, is a product of a few sums of squares.
"""

from dataclasses import dataclass

import arviz as az
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import psymech as psm

Floats = NDArray[np.float64]
PRIOR = {"sd_patient": 2.0, "sd_therapist": 1.0, "sigma": 3.0}
INTERCEPT, SLOPE = (10.0, 5.0), (0.0, 1.0)  # mean and SD of the priors; the intercept's at the average time
POINTS = 161
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Balanced:
    therapists: int
    patients: int
    sessions: int
    sd_patient: float
    sd_therapist: float
    sigma: float
    seed: int

    def frame(self) -> pd.DataFrame:
        rng = np.random.default_rng(self.seed)
        k, m, n = self.therapists, self.patients, self.sessions
        v = rng.normal(0, self.sd_therapist, k)
        u = rng.normal(0, self.sd_patient, (k, m))
        e = rng.normal(0, self.sigma, (k, m, n))
        y = 10 - 0.3 * np.arange(1, n + 1) + v[:, None, None] + u[:, :, None] + e
        index = pd.MultiIndex.from_product(
            [range(k), range(m), range(1, n + 1)], names=["therapist", "patient", "session"]
        )
        frame = pd.DataFrame({"y": y.ravel()}, index=index).reset_index()
        frame["patient"] = [f"{t}/{p}" for t, p in zip(frame["therapist"], frame["patient"], strict=True)]
        return frame


DESIGNS = {
    "interior": Balanced(12, 6, 6, sd_patient=1.5, sd_therapist=1.0, sigma=2.0, seed=1),
    "therapist SD zero": Balanced(8, 5, 5, sd_patient=1.5, sd_therapist=0.0, sigma=2.0, seed=2),
    "five therapists": Balanced(5, 5, 6, sd_patient=1.0, sd_therapist=0.8, sigma=2.0, seed=3),
}


def log_half_normal(x: Floats, sd: float) -> Floats:
    return -0.5 * (x / sd) ** 2


def log_normal(x: float, mean: float, variance: Floats) -> Floats:
    return -0.5 * (np.log(variance) + (x - mean) ** 2 / variance)


def log_posterior(y: Floats, tau_p: Floats, tau_t: Floats, sigma: Floats) -> Floats:
    """Log density of the three SDs, up to a constant; y is (therapist, patient, session)."""
    k, m, n = y.shape
    t = np.arange(1, n + 1) - (n + 1) / 2
    sxx = k * m * (t**2).sum()
    of_patient, of_therapist, grand = y.mean(axis=2), y.mean(axis=(1, 2)), float(y.mean())
    slope = float((y * t).sum() / sxx)
    within = float(((y - of_patient[:, :, None] - slope * t) ** 2).sum())
    between_patients = float(n * ((of_patient - of_therapist[:, None]) ** 2).sum())
    between_therapists = float(m * n * ((of_therapist - grand) ** 2).sum())
    a = sigma**2
    b = a + n * tau_p**2
    c = b + m * n * tau_t**2
    strata = (
        (k * m * (n - 1) - 1) * np.log(a)
        + within / a
        + k * (m - 1) * np.log(b)
        + between_patients / b
        + (k - 1) * np.log(c)
        + between_therapists / c
    )
    return (
        -0.5 * strata
        + log_normal(grand, INTERCEPT[0], c / (k * m * n) + INTERCEPT[1] ** 2)
        + log_normal(slope, SLOPE[0], a / sxx + SLOPE[1] ** 2)
        + log_half_normal(tau_p, PRIOR["sd_patient"])
        + log_half_normal(tau_t, PRIOR["sd_therapist"])
        + log_half_normal(sigma, PRIOR["sigma"])
    )


def exact(design: Balanced) -> dict[str, dict[str, float]]:
    """Mean, SD and quantiles of each SD, by the trapezoidal rule."""
    y = design.frame()["y"].to_numpy().reshape(design.therapists, design.patients, design.sessions)
    spread = float(y.std())
    axes = [np.linspace(0, 3.0 * spread, POINTS), np.linspace(0, 3.0 * spread, POINTS), np.linspace(0.3, 2, POINTS) * 2]
    for _ in range(2):  # look once everywhere, then where the mass is
        weights = []
        for axis in axes:
            w = np.full(POINTS, axis[1] - axis[0])
            w[[0, -1]] /= 2
            weights.append(w)
        log_p = log_posterior(y, *np.meshgrid(*axes, indexing="ij"))
        p = np.exp(log_p - log_p.max())
        marginals = []
        for i in range(3):
            others = [j for j in range(3) if j != i]
            density = np.einsum(p, [0, 1, 2], weights[others[0]], [others[0]], weights[others[1]], [others[1]], [i])
            marginals.append(density / (density * weights[i]).sum())
        seen = [np.flatnonzero(m > 1e-9 * m.max())[[0, -1]] for m in marginals]
        found = dict(zip(("sd_patient", "sd_therapist", "sigma"), zip(axes, marginals, strict=True), strict=True))
        axes = [
            np.linspace(axis[max(low - 1, 0)], axis[min(high + 1, POINTS - 1)], POINTS)
            for axis, (low, high) in zip(axes, seen, strict=True)
        ]
    return {name: summary(x, density) for name, (x, density) in found.items()}


def summary(x: Floats, density: Floats) -> dict[str, float]:
    step = x[1] - x[0]
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * step)])
    mean = float(np.trapezoid(x * density, x))
    out = {"mean": mean, "sd": float(np.sqrt(np.trapezoid((x - mean) ** 2 * density, x)))}
    return out | {f"q{q:g}": float(np.interp(q, below / below[-1], x)) for q in QUANTILES}


def compare(design: Balanced, engine: str) -> None:
    data = psm.SessionData.from_frame(design.frame())
    priors = {name: psm.HalfNormal(sd) for name, sd in PRIOR.items()}
    priors |= {"beta[Intercept]": psm.Normal(*INTERCEPT), "beta[time]": psm.Normal(*SLOPE)}
    spec = psm.growth("y", random={"patient": []}, priors=priors)
    tree = psm.sample(
        psm.build_model(spec, data, engine=engine), draws=4000, tune=1000, chains=4, seed=1, cores=1, progressbar=False
    )
    assert not tree["sample_stats"]["diverging"].any()
    expected = exact(design)
    for name, right in expected.items():
        draws = tree["posterior"][name]
        draws = draws.isel({d: 0 for d in draws.dims if d not in ("chain", "draw")}, drop=True)
        values = draws.values
        assert float(az.ess(values)) >= 1000 and float(az.ess(values, method="tail", prob=(0.05, 0.95))) >= 1000
        found = {"mean": values.mean(), "sd": values.std(ddof=1)}
        error = {key: float(az.mcse(values, method=key)) for key in found}
        for q in QUANTILES:
            found[f"q{q:g}"] = np.quantile(values, q)
            error[f"q{q:g}"] = float(az.mcse(values, method="quantile", prob=q))
        z = {key: (found[key] - right[key]) / error[key] for key in found}
        assert max(map(abs, z.values())) <= 4, (name, z, found, right)
        assert abs(found["mean"] - right["mean"]) <= 0.05 * right["sd"]
        assert 0.95 <= found["sd"] / right["sd"] <= 1.05


def test_the_grid_agrees_with_the_written_out_density():
    """The closed form against the multivariate normal of all rows, at a few points: differences of log densities."""
    from scipy import stats

    design = Balanced(3, 2, 4, sd_patient=1.0, sd_therapist=0.5, sigma=1.0, seed=5)
    frame = design.frame()
    y = frame["y"].to_numpy()
    t = frame["session"].to_numpy() - 2.5
    same_p = frame["patient"].to_numpy()[:, None] == frame["patient"].to_numpy()
    same_t = frame["therapist"].to_numpy()[:, None] == frame["therapist"].to_numpy()

    def written_out(tau_p: float, tau_t: float, sigma: float) -> float:
        V = sigma**2 * np.eye(len(y)) + tau_p**2 * same_p + tau_t**2 * same_t
        V = V + INTERCEPT[1] ** 2 + SLOPE[1] ** 2 * np.outer(t, t)
        likelihood = stats.multivariate_normal(INTERCEPT[0] + SLOPE[0] * t, V).logpdf(y)
        return float(likelihood) - sum(
            0.5 * (x / sd) ** 2 for x, sd in zip((tau_p, tau_t, sigma), PRIOR.values(), strict=True)
        )

    points = [(0.5, 0.1, 1.0), (1.5, 0.0, 0.7), (0.0, 2.0, 3.0), (1.0, 1.0, 1.0)]
    ours = [float(log_posterior(y.reshape(3, 2, 4), *(np.array(value) for value in point))) for point in points]
    theirs = [written_out(*point) for point in points]
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-9, atol=1e-9)


@pytest.mark.sampling
def test_collapsed_posterior_of_five_therapists_is_exact():
    compare(DESIGNS["five therapists"], "collapsed")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["collapsed", "explicit"])
@pytest.mark.parametrize("name", DESIGNS)
def test_posteriors_are_exact(name: str, engine: str):
    compare(DESIGNS[name], engine)

"""simulate_mediation(): sessions in patients in therapists in which a technique works through a common factor, truth
known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psymech.arguments import checked_seed
from psymech.data.sessions import SessionData
from psymech.errors import SpecError

Floats = NDArray[np.float64]
PATHS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class MediationTruth:
    """Values behind a simulated mediation study; paths are a (x to m), b (m to y), c (x to y).

    Attributes
    ----------
    within, patient, therapist : paths within patients, between patients, between therapists.
    sd_patient, sd_therapist : SDs of the random paths over units, by path.
    corr_patient, corr_therapist : correlation of random a and random b.
    intercept_sd_patient, intercept_sd_therapist : SDs of the intercepts of m and y given their predictors.
    sigma : residual SDs of m and y.
    spread_x : SDs of x within patients, between patients and between therapists.
    """

    within: Mapping[str, float] = field(default_factory=lambda: {"a": 0.3, "b": 0.25, "c": 0.1})
    patient: Mapping[str, float] = field(default_factory=lambda: {"a": 0.5, "b": 0.4, "c": 0.2})
    therapist: Mapping[str, float] = field(default_factory=lambda: {"a": 0.2, "b": 0.3, "c": 0.1})
    sd_patient: Mapping[str, float] = field(default_factory=lambda: {"a": 0.25, "b": 0.2, "c": 0.15})
    sd_therapist: Mapping[str, float] = field(default_factory=lambda: {"a": 0.15, "b": 0.12, "c": 0.0})
    corr_patient: float = 0.5
    corr_therapist: float = 0.3
    intercept_sd_patient: tuple[float, float] = (0.5, 0.6)
    intercept_sd_therapist: tuple[float, float] = (0.25, 0.3)
    sigma: tuple[float, float] = (0.8, 0.9)
    spread_x: tuple[float, float, float] = (1.0, 0.6, 0.3)

    def __post_init__(self) -> None:
        for name in ("within", "patient", "therapist", "sd_patient", "sd_therapist"):
            if set(getattr(self, name)) != set(PATHS):
                raise SpecError(
                    f"{name}: expected the paths {', '.join(PATHS)}, found {', '.join(getattr(self, name)) or 'none'}."
                )

    @property
    def indirect(self) -> dict[str, float]:
        """Indirect effects by level: within patients with the covariances of a and b at both levels."""
        covariance = self.corr_patient * self.sd_patient["a"] * self.sd_patient["b"]
        covariance += self.corr_therapist * self.sd_therapist["a"] * self.sd_therapist["b"]
        return {
            "within": self.within["a"] * self.within["b"] + covariance,
            "patient": self.patient["a"] * self.patient["b"],
            "therapist": self.therapist["a"] * self.therapist["b"],
        }

    @property
    def direct(self) -> dict[str, float]:
        """Direct effects by level."""
        return {"within": self.within["c"], "patient": self.patient["c"], "therapist": self.therapist["c"]}


@dataclass(frozen=True, slots=True, eq=False)
class MediationStudy:
    """A simulated study: the table, the truth, and each unit's own paths (columns a, b, c)."""

    data: SessionData
    truth: MediationTruth
    patients: pd.DataFrame
    therapists: pd.DataFrame


def simulate_mediation(
    *,
    therapists: int = 30,
    patients: int = 8,
    sessions: int = 12,
    truth: MediationTruth | None = None,
    means: str = "observed",
    seed: int,
) -> MediationStudy:
    r"""Simulate a 1-1-1 mediation study with three levels and random paths at two of them.

    The equations are those of :func:`psymech.mediation`. With ``means="observed"`` the unit means that act between
    patients and therapists are the means of the recorded sessions; with ``"latent"`` they are the units' true means,
    of which recorded means are unreliable measures.

    Parameters
    ----------
    therapists, patients, sessions
        Number of therapists, patients a therapist and sessions a patient.
    truth
        Paths and variances.
    means
        ``"observed"`` or ``"latent"``.
    seed
        The same seed gives the same study.

    Returns
    -------
    MediationStudy
        ``data`` with the columns ``x``, ``m`` and ``y``.

    Examples
    --------
    >>> study = simulate_mediation(therapists=4, patients=3, sessions=5, seed=1)
    >>> study.data.n_sessions
    60
    """
    if means not in ("observed", "latent"):
        raise SpecError(f"means: expected 'observed' or 'latent', found {means!r}.")
    value = truth or MediationTruth()
    rng = np.random.default_rng(checked_seed(seed))
    n_patients = therapists * patients
    therapist_of = np.repeat(np.arange(therapists), patients)
    patient = np.repeat(np.arange(n_patients), sessions)
    therapist = therapist_of[patient]
    v = _random_paths(rng, therapists, value.sd_therapist, value.corr_therapist)
    u = _random_paths(rng, n_patients, value.sd_patient, value.corr_patient)
    own = {path: value.within[path] + u[path] + v[path][therapist_of] for path in PATHS}

    def intercepts(index: int) -> tuple[Floats, Floats]:
        of_patient = rng.normal(0, value.intercept_sd_patient[index], n_patients)
        of_therapist = rng.normal(0, value.intercept_sd_therapist[index], therapists)
        return of_patient[patient], of_therapist[therapist]

    within, between, above = value.spread_x
    x_patient, x_therapist = rng.normal(0, between, n_patients), rng.normal(0, above, therapists)
    x = 5 + rng.normal(0, within, patient.size) + x_patient[patient] + x_therapist[therapist]
    xw, xp, xt = (
        _parts(x, patient, therapist, n_patients, therapists)
        if means == "observed"
        else (x - 5 - x_patient[patient] - x_therapist[therapist], x_patient[patient], x_therapist[therapist])
    )
    u_m, v_m = intercepts(0)
    mw = own["a"][patient] * xw + rng.normal(0, value.sigma[0], patient.size)
    mp, mt = value.patient["a"] * xp + u_m, value.therapist["a"] * xt + v_m
    m = 4 + mw + mp + mt
    if means == "observed":
        mw, mp, mt = _parts(m, patient, therapist, n_patients, therapists)
    y = (
        10
        + own["b"][patient] * mw
        + own["c"][patient] * xw
        + value.patient["b"] * mp
        + value.patient["c"] * xp
        + value.therapist["b"] * mt
        + value.therapist["c"] * xt
        + sum(intercepts(1))
        + rng.normal(0, value.sigma[1], patient.size)
    )
    frame = pd.DataFrame(
        {
            "therapist": [f"T{k + 1:03d}" for k in therapist],
            "patient": [f"P{i + 1:04d}" for i in patient],
            "session": np.tile(np.arange(1, sessions + 1), n_patients),
            "x": x,
            "m": m,
            "y": y,
        }
    )
    data = SessionData.from_frame(frame)
    by_patient = pd.DataFrame(own, index=[f"P{i + 1:04d}" for i in range(n_patients)])
    by_therapist = pd.DataFrame(
        {path: value.within[path] + v[path] for path in PATHS}, index=[f"T{k + 1:03d}" for k in range(therapists)]
    )
    return MediationStudy(data, value, by_patient, by_therapist)


def _random_paths(rng: np.random.Generator, n: int, sd: Mapping[str, float], corr: float) -> dict[str, Floats]:
    z = rng.standard_normal((3, n))
    b = corr * z[0] + np.sqrt(1 - corr**2) * z[1]
    return {"a": sd["a"] * z[0], "b": sd["b"] * b, "c": sd["c"] * z[2]}


def unit_means(values: Floats, code: NDArray[np.int64], n: int) -> Floats:
    """Return each unit's mean."""
    return np.bincount(code, weights=values, minlength=n) / np.bincount(code, minlength=n)


def _parts(
    values: Floats, patient: NDArray[np.int64], therapist: NDArray[np.int64], n_patients: int, n_therapists: int
) -> tuple[Floats, Floats, Floats]:
    of_patient = unit_means(values, patient, n_patients)[patient]
    of_therapist = unit_means(values, therapist, n_therapists)[therapist]
    return values - of_patient, of_patient - of_therapist, of_therapist - of_therapist.mean()

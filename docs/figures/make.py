"""Draw the figures of the README and of docs/priors.md from the shipped, simulated study.

Run: python docs/figures/make.py.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy.stats import halfnorm

import psymech as psm

HERE = Path(__file__).resolve().parent
DOTS_PER_INCH = 90
DRAWS = 2_000_000
TYPICAL_SHARE = (0.05, 0.08)  # therapists' share of the variance of one outcome a patient, as usually reported
TRUE_SD = {"patients": 2.8, "therapists": 0.7, "residual": 2.2}  # of the simulated study, docs/study.md


def therapists() -> None:
    """Fit the study and draw its therapists."""
    data = psm.load_example("process_study")
    varying = {"patient": ["alliance"], "therapist": ["alliance"]}
    spec = psm.process("phq9", techniques=["exposure"], common_factors=["alliance"], lag=1, slopes=varying)
    fit = psm.fit(spec, data, seed=1)
    figure = psm.plot_therapists(fit, higher_is_better=False)
    figure.savefig(HERE / "therapists.png", dpi=DOTS_PER_INCH, bbox_inches="tight")


def scale_of(table, parameter: str) -> float:
    """Return the scale of a half-normal prior as `describe_priors` tells it."""
    prior = str(table.set_index("parameter").loc[parameter, "prior"])
    return float(prior.partition("sd=")[2].rstrip(")"))


def share(patient: float, therapist: float, seed: int = 1) -> NDArray[np.float64]:
    """Prior draws of the therapists' share of the variance of one outcome a patient."""
    rng = np.random.default_rng(seed)
    of_patients = (patient * rng.standard_normal(DRAWS)) ** 2
    of_therapists = (therapist * rng.standard_normal(DRAWS)) ** 2
    return of_therapists / (of_therapists + of_patients)


def priors() -> None:
    """Draw the default priors of SDs and the share of variance that they imply, beside a typical study."""
    data = psm.load_example("process_study")
    table = psm.describe_priors(psm.growth("phq9"), data).table
    patient, therapist = (scale_of(table, f"sd_{level}[Intercept]") for level in ("patient", "therapist"))
    scales = {"patients": patient, "therapists": therapist, "residual": scale_of(table, "sigma")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    values = np.linspace(0, 12, 400)
    styles = {"patients": ("C0", "-", 4), "therapists": ("C1", "-", 1.5), "residual": ("C2", "--", 1.5)}
    for name, scale in scales.items():
        color, line, width = styles[name]
        density = halfnorm.pdf(values, scale=scale)
        left.plot(values, density, color=color, linestyle=line, linewidth=width, label=name)
        left.plot(TRUE_SD[name], 0, marker="^", color=color, markersize=9, clip_on=False, zorder=3)
    left.set(xlabel="SD, points of the PHQ-9", ylabel="prior density", xlim=(0, 12), ylim=(0, None))
    left.set_title("Default priors; triangles: the simulated study", fontsize=10)
    left.legend(frameon=False)
    for factor, line in ((0.5, ":"), (1.0, "-"), (2.0, "--")):
        density, edges = np.histogram(share(patient, factor * therapist), bins=np.linspace(0, 1, 101), density=True)
        label = {0.5: "half the scale", 1.0: "default", 2.0: "twice the scale"}[factor]
        right.plot((edges[:-1] + edges[1:]) / 2, density, color="C1", linestyle=line, label=label)
    right.axvspan(*TYPICAL_SHARE, color="0.8", label="usually reported")
    right.set(xlabel="therapists' share, one outcome a patient", yscale="log", xlim=(0, 1), ylabel="prior density")
    right.set_title("What the prior of the therapists' SD implies", fontsize=10)
    right.legend(frameon=False)
    figure.savefig(HERE / "priors.png", dpi=DOTS_PER_INCH)


def main() -> None:
    """Draw every figure."""
    therapists()
    priors()


if __name__ == "__main__":
    main()

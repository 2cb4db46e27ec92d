"""Do two programs give the same posterior? A fast wrong answer must not win."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

CHANCE = 0.01  # that equal posteriors are called different, over all figures together
SD_RANGE = (0.8, 1.25)  # ratios of posterior SDs outside are called different, unless that is chance too

Estimates = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Largest difference of means in Monte Carlo errors, what chance allows, and the range of ratios of SDs.

    `sds_agree`: no ratio is both outside SD_RANGE and further from one than its own error explains.
    """

    worst: float
    limit: float
    low: float
    high: float
    sds_agree: bool
    compared: int

    @property
    def agrees(self) -> bool:
        """Whether the posteriors are the same as far as their errors tell."""
        return self.worst <= self.limit and self.sds_agree


def agreement(ours: Estimates, theirs: Estimates) -> Agreement:
    """Compare posteriors by (mean, SD, Monte Carlo error of the mean) of each figure; both must have the same ones."""
    if set(ours) != set(theirs):
        raise ValueError(f"different figures: {sorted(set(ours) ^ set(theirs))[:5]}")
    differences, ratios, spreads = [], [], []
    for name, (mean, sd, error) in ours.items():
        other_mean, other_sd, other_error = theirs[name]
        differences.append(abs(mean - other_mean) / math.hypot(error, other_error))
        ratios.append(other_sd / sd)
        # An SD has the relative error 1 / sqrt(2 n) with n = (sd / error)^2 effective draws.
        own_error = math.hypot(error / sd, other_error / other_sd) / math.sqrt(2)
        outside = not SD_RANGE[0] <= other_sd / sd <= SD_RANGE[1]
        spreads.append(abs(math.log(other_sd / sd)) / own_error if outside else 0.0)
    limit = NormalDist().inv_cdf(1 - CHANCE / (2 * len(differences)))
    same = max(spreads) <= limit
    return Agreement(max(differences), limit, min(ratios), max(ratios), same, len(differences))


def distance_in_sds(ours: Estimates, point: Mapping[str, float]) -> float:
    """Largest distance of a point estimate of a fixed effect from the posterior mean, in posterior SDs."""
    return max(abs(mean - point[name]) / sd for name, (mean, sd, _) in ours.items() if name.startswith("beta["))

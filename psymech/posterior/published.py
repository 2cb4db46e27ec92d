"""Published shares of outcome and of improvement, with what each was divided by."""

from dataclasses import asdict, dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PublishedShare:
    """A published percentage.

    Attributes
    ----------
    what : the ingredient; of : what it is a share of; percent_low, percent_high : the figure, twice where there is one.
    source : where it was read; same_estimand : why it is, or is not, the share that a fit tells.
    """

    what: str
    of: str
    population: str
    percent_low: float
    percent_high: float
    wording: str
    source: str
    same_estimand: str

    def as_dict(self) -> dict[str, str | float]:
        """Return the fields by name."""
        return asdict(self)


_IMPROVEMENT: Final = (
    "No. It divides the mean improvement of the treated: change in untreated controls is called extra-therapeutic, "
    "what "
    "supportive therapy adds common, what specific therapies add to that specific. A fit divides the differences "
    "between patients and sessions."
)
_VARIANCE: Final = (
    "Nearly. It is a share of outcome variance, of one score a patient, as different studies and measures reported it; "
    "compare it "
    "with a model of one score a patient. An upper figure over studies is not an average."
)


def published_shares() -> tuple[PublishedShare, ...]:
    """Return the published shares that readers compare with, in percent.

    Examples
    --------
    >>> [share.what for share in published_shares()][:3]
    ['common factors', 'specific techniques', 'extra-therapeutic factors']
    """
    trials = "adults with depression, 31 studies"
    return (
        PublishedShare(
            "common factors", "mean improvement", trials, 50, 50, "almost 50%", "Cuijpers et al. 2012", _IMPROVEMENT
        ),
        PublishedShare(
            "specific techniques", "mean improvement", trials, 17, 17, "about 17%", "Cuijpers et al. 2012", _IMPROVEMENT
        ),
        PublishedShare(
            "extra-therapeutic factors",
            "mean improvement",
            trials,
            33,
            33,
            "about 33%",
            "Cuijpers et al. 2012",
            _IMPROVEMENT,
        ),
        PublishedShare(
            "therapist",
            "outcome variance",
            "manualised treatments",
            0,
            18,
            "up to 18%",
            "Norcross & Lambert 2018",
            _VARIANCE,
        ),
        PublishedShare(
            "treatment method",
            "outcome variance",
            "psychotherapy",
            0,
            10,
            "0% to 10%",
            "Norcross & Lambert 2018",
            _VARIANCE,
        ),
    )

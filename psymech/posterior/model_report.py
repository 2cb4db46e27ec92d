"""What check_model() found: one value a check, a verdict, and words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["ok", "not ok", "not assessable"]
Status = Literal["ok", "failed", "not assessed"]
Concern = Literal["effects", "variance", "therapists"]


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """One check: the statistic in the data, what the model predicts, and what failing it means.

    Attributes
    ----------
    name, level, response : what was compared, where.
    observed : posterior mean of the statistic of the data; low, high : central 99 % of what the model predicts.
    probability : P(predicted >= observed); extreme where the data are unlike the model.
    status : "failed" where improbable and also large enough to matter.
    concerns : the kinds of number that a failure makes doubtful.
    """

    name: str
    level: str
    response: str
    observed: float
    low: float
    high: float
    probability: float
    status: Status
    concerns: tuple[Concern, ...]
    text: str
    remedy: str

    def __str__(self) -> str:
        """Return what was found and the remedy in one line."""
        return f"{self.text} {self.remedy}".strip()


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The verdict on a model, its checks, and how many units the answer rests on. Prints as plain text."""

    verdict: Verdict
    checks: tuple[ModelCheck, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every check that could be made was passed."""
        return self.verdict == "ok"

    @property
    def failed(self) -> tuple[ModelCheck, ...]:
        """Checks that failed."""
        return tuple(check for check in self.checks if check.status == "failed")

    def doubtful(self, concern: Concern, *, response: str | None = None) -> tuple[ModelCheck, ...]:
        """Return the failed checks that make a kind of number doubtful, of one response or of all."""
        return tuple(
            check
            for check in self.failed
            if concern in check.concerns and (response is None or check.response in ("", response))
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return the checks as a pandas table, one row each."""
        import pandas as pd

        columns = ["check", "level", "response", "observed", "predicted_low", "predicted_high", "p", "status"]
        rows = [(c.name, c.level, c.response, c.observed, c.low, c.high, c.probability, c.status) for c in self.checks]
        return pd.DataFrame(rows, columns=pd.Index(columns)).set_index("check")

    def __str__(self) -> str:
        """Return the verdict, the checks as a table, and messages."""
        mark = {"ok": "ok  ", "failed": "FAIL", "not assessed": "--  "}
        width = max((len(c.name) for c in self.checks), default=0)
        lines = [f"Model: {self.verdict}"]
        for c in self.checks:
            limit = "limit" if np.isnan(c.probability) else "model"
            figures = f"{c.observed:>8.3g}  ({limit}: {c.low:.3g} to {c.high:.3g})" if np.isfinite(c.observed) else ""
            lines.append(f"  {mark[c.status]} {c.level:<9} {c.name:<{width}}  {figures}".rstrip())
        lines += [f"  - {c}" for c in self.checks if c.status != "ok"]
        lines += [f"  - note: {note}" for note in self.notes]
        return "\n".join(lines)

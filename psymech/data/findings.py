"""What a check found: one value a finding, so that a report, a warning and an error can all carry it."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Severity = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a user should know about the data or the design.

    Attributes
    ----------
    severity : {"error", "warning", "note"}
        An error stops the analysis, a warning makes some answers uncertain, a note says what was done.
    code : str
        Stable kebab-case name of the kind of finding.
    column : str
        The column concerned, as the user named it; empty where the whole table is concerned.
    ids : tuple of str
        Ids of the units concerned, five at most.
    message : str
        What was expected and what was found.
    remedy : str
        What to do about it.

    Examples
    --------
    >>> print(Finding("note", "rows-blank", "", (), "2 blank lines were left out.", ""))
    note: 2 blank lines were left out.
    """

    severity: Severity
    code: str
    column: str
    ids: tuple[str, ...]
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}{' ' + self.remedy if self.remedy else ''}"

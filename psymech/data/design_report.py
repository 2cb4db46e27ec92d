"""A report of findings: prints as an aligned table, raises its errors on request."""

import html
import textwrap
from dataclasses import dataclass

import pandas as pd

from psymech.data.findings import SEVERITIES, Finding
from psymech.errors import DesignError

WIDTH = 110


@dataclass(frozen=True, slots=True)
class DesignReport:
    """What the checks of data and design found, errors first.

    Attributes
    ----------
    findings : tuple of Finding
        Every finding, in the order in which it was made.

    Examples
    --------
    >>> report = DesignReport((Finding("warning", "few-units", "therapist", (), "Only 4 therapists.", "Add some."),))
    >>> report.ok, len(report.warnings)
    (True, 1)
    >>> print(report)
    0 errors, 1 warning, 0 notes
    severity  column     finding
    warning   therapist  Only 4 therapists. Add some.
    """

    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that stop the analysis."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that make some answers uncertain."""
        return self._of("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings that say what was done."""
        return self._of("note")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def _of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def raise_errors(self) -> None:
        """Raise one DesignError with every error's message, then the warnings; do nothing where there is no error."""
        if self.errors:
            warned = [f"Warning: {_sentence(finding)}" for finding in self.warnings]
            raise DesignError("\n".join([*(_sentence(finding) for finding in self.errors), *warned]))

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as a table with columns severity, code, column, ids, message, remedy; errors first."""
        names = ["severity", "code", "column", "ids", "message", "remedy"]
        rows = [[getattr(finding, name) for name in names] for finding in self._sorted()]
        return pd.DataFrame(rows, columns=pd.Index(names))

    def _sorted(self) -> list[Finding]:
        return sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))

    def _summary(self) -> str:
        counts = (len(self.errors), len(self.warnings), len(self.notes))
        named = zip(counts, SEVERITIES, strict=True)
        return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in named)

    def __str__(self) -> str:
        if not self.findings:
            return "No findings: the checks found nothing to correct."
        column_width = max(len("column"), *(len(finding.column) for finding in self.findings))
        indent = len("severity") + 2 + column_width + 2
        lines = [self._summary(), f"severity  {'column':<{column_width}}  finding"]
        for finding in self._sorted():
            text = textwrap.wrap(_sentence(finding), max(WIDTH - indent, 40)) or [""]
            lines.append(f"{finding.severity:<8}  {finding.column:<{column_width}}  {text[0]}")
            lines += [" " * indent + line for line in text[1:]]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        if not self.findings:
            return f"<p>{html.escape(str(self))}</p>"
        cells = [(finding.severity, finding.column, _sentence(finding)) for finding in self._sorted()]
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
        head = "<tr><th>severity</th><th>column</th><th>finding</th></tr>"
        return f"<p>{html.escape(self._summary())}</p><table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _sentence(finding: Finding) -> str:
    return f"{finding.message} {finding.remedy}".strip()

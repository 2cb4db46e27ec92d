"""Tables as a Word document, through python-docx: real tables with headings, to be pasted into a manuscript."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from psymech.errors import DataError
from psymech.reporting.privacy import printable

TABLE_STYLE: Final = "Light List"
POINTS: Final = 9

type WordTable = tuple[str, str, pd.DataFrame | None, tuple[str, ...]]


def save_word(tables: Sequence[WordTable], path: Path) -> Path:
    """Write titles, notes and tables of text, one behind the other; reasons in the place of a table that is None."""
    try:
        from docx import Document
    except ImportError as problem:
        raise DataError(
            "word=True needs python-docx, which is not installed. Install psymech with the extra 'word': "
            "pip install 'psymech[word]'."
        ) from problem
    document = Document()
    for title, note, frame, withheld in tables:
        document.add_heading(_text(title), level=2)
        if withheld:
            document.add_paragraph("Withheld:" if frame is None else "Doubtful:")
            for reason in withheld:
                document.add_paragraph(_text(reason), style="List Bullet")
        if note and frame is not None:
            document.add_paragraph(_text(note))
        if frame is not None:
            _add(document, frame)
    document.save(str(path))
    return path


def _add(document: Any, frame: pd.DataFrame) -> None:
    from docx.shared import Pt

    table = document.add_table(rows=len(frame) + 1, cols=max(1, frame.shape[1]), style=TABLE_STYLE)
    lines = [list(frame.columns), *frame.values.tolist()]
    for row, line in zip(table.rows, lines, strict=True):
        for cell, value in zip(row.cells, line, strict=True):
            run = cell.paragraphs[0].add_run(_text(str(value)))
            run.font.size = Pt(POINTS)


def _text(text: str) -> str:
    """Return text without the characters that XML does not allow."""
    return printable(text).replace("\x0b", " ")

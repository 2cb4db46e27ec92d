"""report(): one self-contained HTML file about a fit, for people who were not there."""

import os
import secrets
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Final

import jinja2
import xarray as xr
from markupsafe import Markup

from psymech import names
from psymech.arguments import instance
from psymech.errors import DataError, SpecError
from psymech.posterior import tree as read
from psymech.posterior.summaries import interval_kind, interval_names, interval_prob
from psymech.reporting import words
from psymech.reporting.figures import PLACES, draw_figures
from psymech.reporting.gate import Gate, make_gate, said
from psymech.reporting.privacy import MIN_PATIENTS, Masked, mask, printable, shown_findings, write_key
from psymech.reporting.process import CONSISTENCY, MEDIATION, SHARES, is_mediation
from psymech.reporting.tables import Table, build_tables, save_tables, shown

RANKS: Final = frozenset({"expected_rank", "rank_low", "rank_high"})
PROBABILITIES: Final = frozenset({"p", "p_above", "p_above_zero", "p_below"})
LABELS: Final = frozenset({"term", "quantity", "check"})
SHORT: Final = 42  # letters
INFLUENCE: Final = "influence of one"


@dataclass(frozen=True, slots=True)
class Cells:
    """A table as a page shows it: headings and cells as text, and the class of each column; `again` is the title of
    an earlier table that gives the same reasons.
    """

    name: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    css: tuple[str, ...]
    withheld: tuple[str, ...]
    empty: bool
    again: str


def report(
    tree: xr.DataTree,
    path: str | Path,
    *,
    anonymize: bool = True,
    min_patients: int = MIN_PATIENTS,
    title: str | None = None,
    question: str | None = None,
    ci_prob: float | None = None,
    higher_is_better: bool = True,
    withhold: bool = True,
    tables: str | Path | None = None,
    word: bool = False,
    key: str | Path | None = None,
    seed: int | None = None,
) -> Path:
    """Write a report on a fit: one HTML file that needs no network, to mail or to print.

    It holds the question, the data and what was left out, the model as equation and as nested levels, priors, checks of
    draws and model, estimates with their estimands in words, figures, limits, a paragraph for a methods section,
    versions and seed. Numbers whose checks failed are withheld, with the reasons: see :func:`psymech.check_sampling`
    and :func:`psymech.check_model`.

    Parameters
    ----------
    tree
        A fitted tree.
    path
        Where to; an existing file is replaced.
    anonymize
        Replace ids of patients, therapists and clinics by codes in shuffled order, leave out therapists with few
        patients (two at least, where any), draw no single patients, and take ids out of the notes. False is for use
        inside the service: ids then appear as they are.
    min_patients
        The smallest group shown, 5 at least, with ``anonymize=True``.
    title, question
        Own words in place of the ones made from the model.
    ci_prob
        Probability of the intervals; ArviZ's setting (0.89) by default.
    higher_is_better
        Direction of the ranks; False for symptom scores.
    withhold
        False shows numbers whose checks failed, beside the reasons for doubt.
    tables
        A folder to write the tables to as well, as CSV and LaTeX: see :func:`psymech.write_tables`.
    word
        Write them for Word too, as ``tables.docx``; needs the extra ``word`` (python-docx) and `tables`.
    key
        A file to write which id has which code to, readable by its owner only.
    seed
        Of the codes; None draws new ones for each report, so that two reports cannot be joined.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        The file cannot be written, or the tree is no fit.
    SpecError
        `min_patients` below 5 with ``anonymize=True``, or `word` without `tables`.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.report(tree, "report.html", higher_is_better=False).name
    'report.html'
    """
    instance(path, (str, PathLike), "path", "a file name")
    target = Path(path)
    if not target.resolve().parent.is_dir():
        raise DataError(f"The folder {str(target.parent)!r} does not exist. Make it first, or name another.")
    if word and tables is None:
        raise SpecError("word=True writes tables.docx into the folder of the tables: give it with tables=...")
    masked = mask(tree, anonymize=anonymize, min_patients=min_patients, seed=seed)
    gate = make_gate(masked.tree)
    made = build_tables(masked, gate, ci_prob=ci_prob, higher_is_better=higher_is_better, withhold=withhold)
    page = _page(
        masked,
        gate,
        made,
        title=title,
        question=question,
        ci_prob=ci_prob,
        higher_is_better=higher_is_better,
        withhold=withhold,
    )
    if tables is not None:
        save_tables(made, Path(tables), word=word)
    if key is not None:
        write_key(masked, Path(key))
    return _write(page, target)


def _page(
    masked: Masked,
    gate: Gate,
    made: tuple[Table, ...],
    *,
    title: str | None,
    question: str | None,
    ci_prob: float | None,
    higher_is_better: bool,
    withhold: bool,
) -> str:
    tree = masked.tree
    percent = f"{100 * interval_prob(ci_prob):g}%"
    figures = draw_figures(masked, gate, ci_prob=ci_prob, higher_is_better=higher_is_better, withhold=withhold)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printed,
    )
    style = _template("report.css")
    infos = read.terms_of(tree)
    return environment.get_template("report.html.j2").render(
        title=title or f"Therapy process report: {words.listed(read.responses_of(tree))}",
        question=question or words.question(tree),
        style=Markup(style),  # our own file
        style_hash=b64encode(sha256(style.encode()).digest()).decode("ascii"),
        counts=words.listed([f"{n:,} {level}s" for level, n in words.counts(tree).items()]),
        unit=words.unit_of_scores(tree),
        letters=words.letters(tree),
        findings=[(severity, text) for severity, text in shown_findings(masked)],
        equations=words.equations(tree),
        levels=words.levels_drawn(tree),
        estimands=[(words.readable(info.label), words.estimand(info, tree)) for info in infos],
        tables=_all_cells(made, percent, ci_prob),
        mediated=is_mediation(tree),
        process_tables=[name for name in (MEDIATION, SHARES) if name in {table.name for table in made}],
        consistency=any(table.name == CONSISTENCY for table in made),
        influence=[check for check in gate.model.checks if check.name.startswith(INFLUENCE) and check.status == "ok"]
        if gate.model is not None
        else [],
        unit_tables=[f"{level}s" for level in ("therapist", "clinic") if level in read.levels_of(tree)],
        figures={place: [f for f in figures if f.place == place] for place in PLACES},
        sampling=gate.sampling,
        model=gate.model,
        unmet=[
            (check.status, said(check, tree))
            for check in (gate.model.checks if gate.model is not None else ())
            if check.status != "ok"
        ],
        model_missing=gate.model_missing,
        verdicts=_verdicts(gate),
        limits=words.limits(tree, gate),
        methods=words.methods(tree, gate, percent),
        versions=words.versions(tree),
        seed=tree.attrs.get(names.ATTR_SEED, "not recorded"),
        sampler=tree.attrs.get(names.ATTR_SAMPLER, "not recorded"),
        engine=tree.attrs.get(names.ATTR_ENGINE, "not recorded"),
        anonymous=masked.anonymous,
        min_patients=masked.min_patients,
        withhold=withhold,
    )  # fmt: skip


def _verdicts(gate: Gate) -> list[tuple[str, str, str]]:
    """Return name, verdict and class of the two verdicts at the top."""
    css = {"ok": "good", "not ok": "bad", "not assessable": "unsure"}
    found = [("Draws", gate.sampling.verdict, css[gate.sampling.verdict])]
    model = "not assessable" if gate.model is None else gate.model.verdict
    return [*found, ("Model", model, css[model])]


def _all_cells(made: tuple[Table, ...], percent: str, ci_prob: float | None) -> dict[str, Cells]:
    """Return the tables by name; reasons that an earlier one gives are not repeated."""
    first: dict[tuple[str, ...], str] = {}
    found = {}
    for table in sorted(made, key=lambda table: table.name != MEDIATION):  # the first to be read
        again = first.get(table.withheld, "")
        if table.withheld:
            first.setdefault(table.withheld, table.title)
        found[table.name] = _cells(table, percent, ci_prob, again)
    return found


def _cells(table: Table, percent: str, ci_prob: float | None, again: str) -> Cells:
    if table.frame is None:
        return Cells(table.name, table.title, table.note, (), (), (), table.withheld, True, again)
    frame = table.frame
    low, high = interval_names(ci_prob)
    kind = "HDI" if interval_kind() == "hdi" else "interval"
    heading = {
        low: f"{percent} {kind}",
        "rank_low": f"rank, {percent} {kind}",
        "p": "p(above 0)" if table.name == "effects" else "p",
        "p_above": "p(above)",
        "p_below": "p(below)",
        "ok": "passed",
    }
    heading |= {
        "predicted_low": "expected",
        "n_patients": "patients",
        "n_sessions": "sessions",
        "n_therapists": "therapists",
    }
    pairs = {low: high, "rank_low": "rank_high", "predicted_low": "predicted_high"}
    columns = [str(name) for name in frame.columns if name not in pairs.values()]

    def text(name: str) -> list[str]:
        cells = [_cell(name, value, table.name) for value in frame[name].tolist()]
        if name not in pairs:
            return cells
        ends = [_cell(pairs[name], value, table.name) for value in frame[pairs[name]].tolist()]
        return [f"{a} to {b}" if a and b else "" for a, b in zip(cells, ends, strict=True)]

    texts = [text(name) for name in columns]
    rows = tuple(zip(*texts, strict=True))
    css = tuple(_class(frame[name].dtype.kind in "fiu", cells) for name, cells in zip(columns, texts, strict=True))
    head = tuple(heading.get(name, name.replace("_", " ")) for name in columns)
    return Cells(table.name, table.title, table.note, head, rows, css, table.withheld, False, again)


def _class(number: bool, cells: list[str]) -> str:
    """Return n for numbers, s for text too short to be broken, t for the rest."""
    return "n" if number else "s" if max((len(cell) for cell in cells), default=0) <= SHORT else "t"


def _cell(name: str, value: object, table: str) -> str:
    if table == "variance" and isinstance(value, float):
        return "<0.001" if 0 < value < 0.0005 else f"{value:.3f}"
    if table == "sampling" and name == "value" and isinstance(value, float) and 0 < value < 10:
        return f"{value:.3f}" if not value.is_integer() else f"{value:.0f}"  # 1.014 is not 1.01, the limit
    if name in PROBABILITIES and isinstance(value, float) and value == value:
        return "<0.001" if value < 0.0005 else ">0.999" if value > 0.9995 else f"{value:.3f}"
    if name in LABELS:
        return words.readable(str(value))
    if name == "value" and isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if name in RANKS and isinstance(value, float) and value == value:
        return f"{value:.1f}" if name == "expected_rank" else f"{value:.0f}"
    return shown(value)


def _template(name: str) -> str:
    return (files("psymech.reporting") / name).read_text(encoding="utf-8")


def _printed(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _write(page: str, target: Path) -> Path:
    """Write under another name first, so that a full disk leaves no half report."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as problem:
        raise DataError(
            f"Could not write the report {target.name!r}: {problem.strerror or problem}. Name another place."
        ) from problem
    finally:
        temporary.unlink(missing_ok=True)
    return target

"""The tables of a report: numbers from the estimates, titles and notes in words, CSV and LaTeX."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import DataError, PsymechError
from psymech.names import SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.effects import effects
from psymech.posterior.summaries import interval, interval_names, interval_prob
from psymech.posterior.therapists import summarize_therapists
from psymech.posterior.variance import RESIDUAL, Per, variance_partition
from psymech.reporting.gate import Gate, Section, make_gate
from psymech.reporting.privacy import MIN_PATIENTS, Masked, mask, safe_frame, write_key
from psymech.reporting.process import process_parts
from psymech.reporting.word import save_word
from psymech.reporting.words import unit_of_scores
from psymech.spec.priors import describe, from_dict

DIGITS: Final = 3


@dataclass(frozen=True, slots=True)
class Table:
    """One table: a short name for files, a title, what the numbers mean, and the numbers (None: withheld, with
    reasons).
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame | None
    withheld: tuple[str, ...] = ()


def build_tables(
    masked: Masked, gate: Gate, *, ci_prob: float | None, higher_is_better: bool, withhold: bool
) -> tuple[Table, ...]:
    """Return every table of a report, in reading order."""
    tree = masked.tree
    percent = f"{100 * interval_prob(ci_prob):g}%"

    def make(name: str, title: str, note: str, section: Section | None, frame: Callable[[], pd.DataFrame]) -> Table:
        reasons = gate.reasons[section] if section is not None else ()
        if reasons and withhold:
            return Table(name, title, note, None, reasons)
        try:
            return Table(name, title, note, frame(), reasons)
        except PsymechError as problem:
            return Table(name, title, note, None, (str(problem),))

    found = [
        make(
            "effects",
            "Fixed effects",
            f"Mean, SD and {percent} interval of the posterior; p(above 0): probability of a value above zero."
            f"{_contextual(tree)}",
            "effects",
            lambda: _effects(tree, ci_prob),
        ),
        make(
            "variance",
            "Shares of variance",
            f"Posterior mean and {percent} interval of the share of the variance beyond the fixed effects."
            f"{_scale(tree)}",
            "variance",
            lambda: _variance(tree, ci_prob),
        ),
        make(
            "variation",
            "How much patients and therapists differ, and what is left",
            "SDs of random terms and residuals in outcome units (log odds for binary and ordinal outcomes) per unit of "
            f"the column, correlations of random terms; posterior mean and {percent} interval.",
            "variance",
            lambda: _variation(tree, ci_prob),
        ),
    ]
    for level in read.levels_of(tree):
        if level != "patient":
            found.append(
                make(
                    f"{level}s",
                    f"Effects of single {level}s",
                    _of_units(masked, level, percent, higher_is_better),
                    "therapists",
                    _units(masked, level, ci_prob, higher_is_better),
                )
            )
    parts = process_parts(masked, ci_prob=ci_prob, percent=percent)
    found += [make(part.name, part.title, part.note, part.section, part.frame) for part in parts]
    found.append(make("priors", "Priors", "Given by the user, or defaults scaled by SDs.", None, _priors(tree)))
    sampling = gate.sampling.to_frame().reset_index()
    found.append(Table("sampling", "Checks of the draws", "", sampling))
    if gate.model is None:
        found.append(Table("model", "Checks of the model", "", None, (gate.model_missing,)))
    else:
        note = (
            "Expected: the central 99% of what the model predicts; for influence and priors the range "
            "that is accepted. p: probability of a larger value in replicated data."
        )
        found.append(Table("model", "Checks of the model", note, gate.model.to_frame().reset_index()))
    return tuple(found)


def _contextual(tree: xr.DataTree) -> str:
    parts = {info.part for info in read.terms_of(tree)} & {"within", "patient", "therapist"}
    return " Differences of two terms are contextual effects." if len(parts) > 1 else ""


def _scale(tree: xr.DataTree) -> str:
    """Say what a share of variance is of, where that is not the outcome of any row."""
    found = ""
    if any(read.family_of(tree, response) not in read.IDENTITY_LINK for response in read.responses_of(tree)):
        found += " Binary and ordinal outcomes: of the variance on the scale of log odds."
    arm = read.json_attr(tree, names.ATTR_SPEC).get("therapist_in")
    return found + (f" Averaged over all patients, those without therapists ({arm} = 0) included." if arm else "")


def _of_units(masked: Masked, level: str, percent: str, higher_is_better: bool) -> str:
    tree = masked.tree
    n = read.units_with_rows(tree, level).size
    peers = " of the same clinic" if level == "therapist" and "clinic" in read.levels_of(tree) else ""
    hidden = len(masked.hidden.get(level, ()))
    shared = " Caseload: the sum of the shares in patients." if level in read.shared_levels(tree) else ""
    return (
        f"Deviation from the average {level}{peers}: mean, SD and {percent} interval; p(above): probability that it is "
        f"above the average. Ranks run from 1 to {n}; rank {n} belongs to the "
        f"{'highest' if higher_is_better else 'lowest'} value. Reliability: 1 - posterior variance / variance between "
        f"{level}s; zero or below where the data say nothing about a {level}. Raw mean, where shown: without shrinkage."
        f"{shared}"
    ) + (
        f" {hidden} {level}s are left out so that nobody with fewer than {masked.min_patients} patients can be "
        "recognised."
        if hidden
        else ""
    )


def _effects(tree: xr.DataTree, ci_prob: float | None) -> pd.DataFrame:
    table = effects(tree, ci_prob=ci_prob).reset_index()
    keep = ["term", "mean", "sd", *interval_names(ci_prob), "p_above_zero"]
    return pd.DataFrame({"p" if name == "p_above_zero" else name: table[name] for name in keep})


def _variance(tree: xr.DataTree, ci_prob: float | None) -> pd.DataFrame:
    rows = []
    for response in read.responses_of(tree):
        own = read.level_of_response(tree, response)
        pers: tuple[Per, ...] = ("session", "patient") if own == "session" else ("patient",)
        for per in pers:
            shares = variance_partition(tree, per=per, response=response)
            low, high = interval(shares["share"], ci_prob)
            mean = shares["share"].mean(SAMPLE_DIMS)
            for level in shares["level"].values.tolist():
                values = [float(each.sel(level=level)) for each in (mean, low, high)]
                between = f"{own}s (residual)" if level == RESIDUAL else f"{level}s"
                rows.append((response, f"one outcome per {shares.attrs['per']}", between, *values))
    columns = ["response", "of the variance of", "between", "share", *interval_names(ci_prob)]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _variation(tree: xr.DataTree, ci_prob: float | None) -> pd.DataFrame:
    posterior = read.posterior(tree)
    rows = []

    def add(quantity: str, level: str, values: xr.DataArray) -> None:
        low, high = interval(values, ci_prob)
        rows.append((quantity, level, float(values.mean()), float(low), float(high)))

    for level in read.levels_of(tree):
        dim = names.term_dim(level)
        labels = read.labels_of(posterior, dim)
        for label in labels:
            add(f"SD of {label}", level, read.take(posterior[names.sd(level)], dim, label))
        if names.corr(level) in posterior:
            matrix = posterior[names.corr(level)]
            for i, j in zip(*np.triu_indices(len(labels), 1), strict=True):
                values = matrix.isel({dim: i, dim + names.AUX: j}, drop=True)
                if float(abs(values).max()) > 0:
                    add(f"correlation of {labels[i]} and {labels[j]}", level, values)
    words = {names.SIGMA: "residual SD", names.PHI: "residual autocorrelation", names.NU: "degrees of freedom"}
    words[names.SD_LOG_SIGMA] = "SD of therapists' log residual SD"
    lowest = unit_of_scores(tree)
    words[names.CORR_LOG_SIGMA] = "correlation of therapists' log residual SD with their effect"
    for name, title in words.items():
        if name not in posterior:
            continue
        values = posterior[name]
        if names.RESPONSE in values.dims:
            for label in read.labels_of(values, names.RESPONSE):
                own = read.level_of_response(tree, label) if label in read.responses_of(tree) else lowest
                add(f"{title} of {label}", own, read.take(values, names.RESPONSE, label))
        elif names.RESIDUAL_GROUP in values.dims:
            column = read.json_attr(tree, names.ATTR_SPEC)["residual_by"]
            for label in read.labels_of(values, names.RESIDUAL_GROUP):
                add(f"{title} where {column} is {label}", lowest, read.take(values, names.RESIDUAL_GROUP, label))
        else:
            add(title, lowest, values)
    return pd.DataFrame(rows, columns=pd.Index(["quantity", "level", "mean", *interval_names(ci_prob)]))


def _units(masked: Masked, level: str, ci_prob: float | None, higher_is_better: bool) -> Callable[[], pd.DataFrame]:
    def frame() -> pd.DataFrame:
        tree = masked.tree
        hidden = set(masked.hidden.get(level, ()))
        parts = []
        for label in read.labels_of(read.posterior(tree), names.term_dim(level)):
            response, _, term = label.rpartition("~")
            table = summarize_therapists(
                tree,
                term=term,
                response=response or None,
                level=level,
                ci_prob=ci_prob,
                higher_is_better=higher_is_better,
            )
            table = table.loc[[code for code in table.index if str(code) not in hidden]].sort_index()
            table.insert(0, "term", label)
            parts.append(table.reset_index())
        together = pd.concat(parts, ignore_index=True)
        if unit_of_scores(tree) != "session":
            together = together.drop(columns=["n_sessions"], errors="ignore")
        return together.drop(columns=["raw_mean"]) if np.isnan(together["raw_mean"].to_numpy()).all() else together

    return frame


def _priors(tree: xr.DataTree) -> Callable[[], pd.DataFrame]:
    def frame() -> pd.DataFrame:
        if names.ATTR_PRIORS not in tree.attrs:
            raise DataError("The fit does not say which priors it used; it was made by an earlier version.")
        rows = [(name, describe(from_dict(prior))) for name, prior in read.json_attr(tree, names.ATTR_PRIORS).items()]
        return pd.DataFrame(rows, columns=pd.Index(["parameter", "prior"]))

    return frame


def shown(value: object) -> str:
    """Return a cell as a report shows it: three significant digits, no needless decimals.

    >>> shown(0.123456), shown(1234.5), shown(-0.00001), shown(3), shown(float("nan"))
    ('0.123', '1234', '-0.00001', '3', '')
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return ""
        if np.isinf(number):
            return "infinite" if number > 0 else "-infinite"
        if number == 0 or abs(number) >= 100:
            return f"{number:.0f}"
        decimals = max(0, DIGITS - 1 - int(np.floor(np.log10(abs(number)))))
        if decimals > DIGITS:
            return f"{number:.{DIGITS}f}" if abs(number) >= 0.0005 else f"{number:.1g}".replace("e-0", "e-")
        return f"{number:.{decimals}f}"
    return str(value)


def save_tables(tables: tuple[Table, ...], folder: Path, *, word: bool) -> tuple[Path, ...]:
    """Write each table as CSV (text cells safe for spreadsheets) and all of them as LaTeX, and for Word where asked;
    names are fixed, not from ids.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [_write_csv(table, folder / f"{table.name}.csv") for table in tables]
        latex = folder / "tables.tex"
        latex.write_text("\n".join(_latex(table) for table in tables), encoding="utf-8")
        document = [_for_word(table) for table in tables]
        written += [latex, *([save_word(document, folder / "tables.docx")] if word else [])]
    except OSError as problem:
        raise DataError(
            f"Could not write tables to the folder {folder.name!r}: {problem.strerror or problem}. Name another folder."
        ) from problem
    return tuple(written)


def _for_word(table: Table) -> tuple[str, str, pd.DataFrame | None, tuple[str, ...]]:
    text = None if table.frame is None else table.frame.map(shown).rename(columns=str)
    return table.title, table.note, text, table.withheld


def _write_csv(table: Table, path: Path) -> Path:
    frame = table.frame
    if frame is None:
        frame = pd.DataFrame({"withheld": list(table.withheld)})
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        safe = safe_frame(frame)
        writer.writerow(list(safe.columns))
        writer.writerows(_csv_cells(safe))
    return path


def _csv_cells(frame: pd.DataFrame) -> Iterator[list[object]]:
    for row in frame.itertuples(index=False, name=None):
        yield ["" if isinstance(value, float) and np.isnan(value) else value for value in row]


def _latex(table: Table) -> str:
    if table.frame is None:
        reasons = " ".join(table.withheld).replace("\n", " ")
        return f"% {_escaped(table.title)}: withheld. {_escaped(reasons)}\n"
    text = table.frame.map(shown)
    caption = _escaped(f"{table.title}. {table.note}".strip())
    return text.rename(columns=str).to_latex(index=False, escape=True, caption=caption, label=f"tab:{table.name}")


_LATEX: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def write_tables(
    tree: xr.DataTree,
    folder: str | Path,
    *,
    anonymize: bool = True,
    min_patients: int = MIN_PATIENTS,
    ci_prob: float | None = None,
    higher_is_better: bool = True,
    withhold: bool = True,
    word: bool = False,
    key: str | Path | None = None,
    seed: int | None = None,
) -> tuple[Path, ...]:
    """Write a fit's tables to a folder: one CSV each, ``tables.tex`` for LaTeX, and ``tables.docx`` for Word.

    Text cells that a spreadsheet would run (starting with = + - @ tab or return) get an apostrophe. Numbers whose
    checks failed are withheld: the file then gives the reasons.

    Parameters
    ----------
    tree, anonymize, min_patients, ci_prob, higher_is_better, withhold, key, seed
        As in :func:`psymech.report`.
    folder
        Made where it does not exist; files of the same names are replaced.
    word
        Write ``tables.docx`` as well, which needs the extra ``word`` (python-docx).

    Returns
    -------
    tuple of Path
        ``effects.csv``, ``variance.csv``, ``variation.csv``, ``therapists.csv``, ``priors.csv``, ``sampling.csv``,
        ``model.csv``; ``mediation.csv``, ``ingredients.csv`` or ``consistency.csv`` for models that have them;
        ``tables.tex``, ``tables.docx``.

    Raises
    ------
    DataError
        The folder cannot be written to, or python-docx is not installed where `word` asks for it.
    SpecError
        `min_patients` below 5 with ``anonymize=True``.

    Examples
    --------
    >>> import psymech as psm
    >>> [path.name for path in psm.write_tables(tree, "tables")][:3]
    ['effects.csv', 'variance.csv', 'variation.csv']
    """
    masked = mask(tree, anonymize=anonymize, min_patients=min_patients, seed=seed)
    gate = make_gate(masked.tree)
    tables = build_tables(masked, gate, ci_prob=ci_prob, higher_is_better=higher_is_better, withhold=withhold)
    if key is not None:
        write_key(masked, Path(key))
    return save_tables(tables, Path(folder), word=word)

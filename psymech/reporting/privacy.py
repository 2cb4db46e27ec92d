"""What leaves the house: ids replaced by shuffled codes, small groups left out, cells that no spreadsheet runs."""

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.arguments import checked_seed, whole
from psymech.errors import DataError, PsymechError, SpecError
from psymech.names import LEVELS
from psymech.posterior import tree as read
from psymech.posterior.caseload import caseload

MIN_PATIENTS: Final = 5  # the smallest number of patients that an anonymised table shows anything about
MAX_SHOWN: Final = 60
LETTERS: Final = {"patient": "P", "therapist": "T", "clinic": "C"}
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
WITHHELD: Final = "(id withheld)"
VALUES_SHOWN: Final = {
    "values-outlying": "Column '{column}' has values far outside all others.",
    "session-jump": "Session numbers jump far ahead for some patients.",
}


@dataclass(frozen=True, slots=True)
class Masked:
    """A tree that may be shown: its ids are codes (or printable ids), and the units that must not be shown.

    Attributes
    ----------
    codes : by level, the code of each id.
    hidden : by level, codes of units with too few patients.
    anonymous : whether ids were replaced.
    """

    tree: xr.DataTree
    codes: Mapping[str, Mapping[Any, str]]
    hidden: Mapping[str, tuple[str, ...]]
    anonymous: bool
    min_patients: int


def safe_cell(value: object) -> object:
    """Return a cell that a spreadsheet shows instead of running: text that could start a formula gets an apostrophe.

    Numbers are exempt by their type (CWE-1236).

    >>> safe_cell("=1+1"), safe_cell(-3.5), safe_cell("T01")
    ("'=1+1", -3.5, 'T01')
    """
    if not isinstance(value, str):
        return value
    risky = value.startswith(FORMULA_STARTS) or value.lstrip().startswith(FORMULA_STARTS)
    return f"'{value}" if risky else value


def safe_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the index as columns and every text cell and heading safe."""
    flat = frame.reset_index() if frame.index.name or frame.index.nlevels > 1 else frame
    cells = {name: [safe_cell(value) for value in flat[name].tolist()] for name in flat.columns}
    return pd.DataFrame({str(safe_cell(str(name))): values for name, values in cells.items()})


def printable(text: str) -> str:
    r"""Return text without control characters and without marks that turn the direction of what follows.

    >>> print(printable("a\x07b"))
    a\x07b
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def mask(tree: xr.DataTree, *, anonymize: bool, min_patients: int, seed: int | None) -> Masked:
    """Return the tree under codes in shuffled order (or under its own ids, made printable) and the units to hide."""
    whole(min_patients, "min_patients", lowest=0)
    if anonymize and min_patients < MIN_PATIENTS:
        raise SpecError(
            f"min_patients: an anonymised report shows no group of fewer than {MIN_PATIENTS} patients, "
            f"found {min_patients!r}. Use {MIN_PATIENTS} or more, or anonymize=False for use inside the service."
        )
    rng = np.random.default_rng(checked_seed(seed))
    posterior = read.posterior(tree)
    labels = {level: posterior[level].values.tolist() for level in LEVELS if level in posterior.coords}
    codes: dict[str, dict[Any, str]] = {}
    for level, ids in labels.items():
        if anonymize:
            width = len(str(len(ids)))
            order = rng.permutation(len(ids)) + 1
            codes[level] = {id_: f"{LETTERS[level]}{i:0{width}d}" for id_, i in zip(ids, order, strict=True)}
        else:
            codes[level] = _distinct({id_: _short(printable(str(id_))) for id_ in ids})
    new = xr.DataTree.from_dict({node.path: _relabelled(node, codes) for node in tree.subtree})
    new.attrs = dict(tree.attrs)
    hidden = _small(new, min_patients) if anonymize else {}
    return Masked(new, codes, hidden, anonymize, min_patients)


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _distinct(codes: dict[Any, str]) -> dict[Any, str]:
    seen: dict[str, int] = {}
    out = {}
    for id_, code in codes.items():
        seen[code] = seen.get(code, 0) + 1
        out[id_] = code if seen[code] == 1 else f"{code} ({seen[code]})"
    return out


def _relabelled(node: xr.DataTree, codes: Mapping[str, Mapping[Any, str]]) -> xr.Dataset:
    dataset = node.to_dataset(inherit=False)
    found = {
        level: [table[value] for value in dataset[level].values.tolist()]
        for level, table in codes.items()
        if level in dataset.coords
    }
    return dataset.assign_coords({level: (level, values) for level, values in found.items()})


def _small(tree: xr.DataTree, min_patients: int) -> dict[str, tuple[str, ...]]:
    """Units with fewer patients than may be shown, and where that is only one, the next smallest as well."""
    hidden: dict[str, tuple[str, ...]] = {}
    for level in read.levels_of(tree):
        if level == "patient":
            continue
        kept = read.units_with_rows(tree, level)
        labels = [str(read.unit_labels(tree, level)[i]) for i in kept]
        try:
            load = caseload(tree, level=level)["n_patients"].to_numpy()
        except PsymechError:  # nobody can say who is small, so nobody is shown
            hidden[level] = tuple(labels)
            continue
        small = int((load < min_patients).sum())
        order = np.argsort(load, kind="stable")[: 2 if small == 1 else small]
        hidden[level] = tuple(labels[i] for i in order)
    return hidden


def shown_findings(masked: Masked) -> list[tuple[str, str]]:
    """Return severity and words of the findings on the table; anonymous ones name nobody and count no small group.

    Notes on columns that the model does not use are left out.
    """
    attr = masked.tree.attrs.get(names.ATTR_NOTES)
    if attr is None:
        return []
    found = []
    known = {str(id_) for table in masked.codes.values() for id_ in table}
    for entry in read.json_attr(masked.tree, names.ATTR_NOTES):
        if isinstance(entry, str):  # a fit of an early version: its words cannot be told from ids
            found.append(("note", "A finding of an earlier version was left out." if masked.anonymous else entry))
            continue
        if entry["severity"] == "note" and not _concerns(masked.tree, entry.get("column") or ""):
            continue
        text = " ".join(part for part in (entry["message"], entry["remedy"]) if part)
        if masked.anonymous:
            if entry["code"] in VALUES_SHOWN:
                text = f"{VALUES_SHOWN[entry['code']].format(column=entry['column'])} {entry['remedy']}".strip()
            text = without_ids(text, [*map(str, entry["ids"])], known, masked.min_patients)
        found.append((entry["severity"], text))
    return found


def _concerns(tree: xr.DataTree, column: str) -> bool:
    """Whether a note on a column belongs in a report: on any without a name, and on those that the fit mentions."""
    said = (tree.attrs.get(names.ATTR_SPEC, ""), tree.attrs.get(names.ATTR_DESIGN, ""))
    return not column or any(json.dumps(column, ensure_ascii=False) in text for text in said)


def without_ids(text: str, own: Sequence[str], known: Iterable[str], min_patients: int = MIN_PATIENTS) -> str:
    """Return a finding's words without ids and without counts of few patients.

    Ids are taken out where they follow the word patient, therapist or clinic or a colon; ids that are no plain numbers
    everywhere.

    >>> without_ids("2 of 9 values are missing, in 2 patients: 7, 9.", ["7", "9"], ["7", "9"])
    '2 of 9 values are missing, in fewer than 5 patients.'
    """
    ids = sorted({*own, *known}, key=len, reverse=True)
    if ids:
        one = "|".join(re.escape(id_) for id_ in ids)
        quoted = rf"['\"]?(?:{one})['\"]?"
        run = rf"{quoted}(?:, {quoted})*(?: and \d+ more)?"
        text = re.sub(rf": (?:{run})(?!\w)", "", text)
        text = re.sub(rf"(\b(?i:patient|therapist|clinic|id)s?:? )(?:{run})(?!\w)", rf"\g<1>{WITHHELD}", text)
        words = [re.escape(id_) for id_ in ids if not re.fullmatch(r"[\d.,]*", id_)]
        if words:
            text = re.sub(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", WITHHELD, text)
    few = "|".join(str(i) for i in range(1, min_patients))
    return re.sub(rf"(?<![\w.,])(?:{few}) (patients?)\b", f"fewer than {min_patients} patients", text)


def write_key(masked: Masked, path: Path) -> Path:
    """Write which id has which code, to a file that only its owner may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(path, flags, 0o600)
        os.chmod(path, 0o600)
    except OSError as problem:
        raise DataError(f"Could not write the key {path.name!r}: {problem.strerror or problem}.") from problem
    with os.fdopen(handle, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["level", "id", "code"])
        for level, table in masked.codes.items():
            writer.writerows([level, safe_cell(str(id_)), code] for id_, code in table.items())
    return path

"""Ids that may be one unit written twice, several units written as one, or no unit at all: kept, and warned of."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from psymech.data.findings import Finding, Severity
from psymech.data.numbers import DATE
from psymech.data.scales import CODES, FAR
from psymech.errors import MAX_IDS_IN_MESSAGE, shown_id, shown_ids

MAX_PAIRS: Final = MAX_IDS_IN_MESSAGE // 2
WHOLE: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
SPREADSHEET_DATE: Final = re.compile(
    r"\d{1,2}[-. ](jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*\.?([- ]\d{2,4})?", re.IGNORECASE
)
SEVERAL: Final = re.compile(r"\s*[;,/&+|]\s*|\s+(?:and|und|et|y)\s+")
INVISIBLE: Final = re.compile(r"[\u200c\u200d\u034f\ufe00-\ufe0f]")
_CYRILLIC_GREEK: Final = "АВЕКМНОРСТУХаеорсухіјѕԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧο"
_LATIN: Final = "ABEKMHOPCTYXaeopcyxijsdqwABEZHIKMNOPTYXo"
_PRINTED_ALIKE: Final = str.maketrans(_CYRILLIC_GREEK, _LATIN)
_MISREAD: Final = str.maketrans("OIl‐‑‒–—―−´`‘’", "011-------''''")
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})


def doubtful_ids(labels: Collection[str], *, role: str, name: str) -> list[Finding]:
    """Return warnings about ids that hardly mean what they say.

    Ids that differ only in case, spaces, accents, leading zeros, or in characters that look alike; ids made of others
    ("T1; T2"); codes for missing values among numbers; ids that a spreadsheet may have turned into dates.

    Parameters
    ----------
    labels : collection of str
        Distinct ids.
    role : str
        "patient", "therapist" or "clinic", for the message.
    name : str
        The column.

    Examples
    --------
    >>> found = doubtful_ids({"T1", "T2", "T1; T2"}, role="therapist", name="therapist")
    >>> print(found[0].message)
    Some therapist ids (column 'therapist') are made of several others: T1; T2.
    """
    ordered = sorted(labels)
    numbers = {label: int(label) for label in ordered if WHOLE.fullmatch(label)}
    return [
        *_alike(ordered, role, name),
        *_combined(ordered, role, name),
        *code_ids(numbers, role=role, name=name),
        *_dates(ordered, role, name),
    ]


def near_ids(absent: Iterable[str], candidates: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of ids of two tables that differ only in case, spaces, accents, leading zeros or a trailing .0.

    >>> near_ids(["7", "p1"], ["007", "P1", "P2"])
    [('7', '007'), ('p1', 'P1')]
    """
    by_plain = {_plain(candidate): candidate for candidate in candidates}
    return [(label, by_plain[_plain(label)]) for label in absent if _plain(label) in by_plain]


def _plain(label: str) -> str:
    text = _without_accents(label).removesuffix(".0")
    return text.lstrip("0") if text.isascii() and text.isdigit() else text


def _folded(label: str) -> str:
    return " ".join(label.casefold().split())


def _looks(label: str) -> str:
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", _repaired(label)))
    return text.translate(_PRINTED_ALIKE).translate(_MISREAD)


def _repaired(label: str) -> str:
    """Undo UTF-8 that was read as Windows-1252: MÃ¼ller to Müller."""
    try:
        return label if label.isascii() else label.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return label


def _without_accents(label: str) -> str:
    decomposed = unicodedata.normalize("NFKD", _folded(label))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _number(label: str) -> str | None:
    return label.lstrip("0") if label.isascii() and label.isdigit() else None


_LIKENESS: Final[tuple[tuple[str, Callable[[str], str | None], str], ...]] = (
    ("ids-differ-by-case", _folded, "differ only in upper and lower case or in spaces"),
    ("ids-look-alike", _looks, "look alike but are written with different characters (alphabet, dash, O for 0, marks)"),
    ("ids-differ-by-accents", _without_accents, "differ only in accents"),
    ("ids-differ-by-accents", lambda label: _folded(label).translate(_UMLAUTS), "differ only in umlauts (ü for ue)"),
    ("ids-differ-by-zeros", _number, "differ only in leading zeros"),
)


def _alike(labels: list[str], role: str, name: str) -> list[Finding]:
    found: list[Finding] = []
    paired: set[str] = set()
    for code, key, what in _LIKENESS:
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for label in labels:
            if (folded := key(label)) is not None:
                groups[folded].append(label)
        alike = [group for group in groups.values() if len(group) > 1 and not paired.issuperset(group)]
        paired.update(label for group in alike for label in group)
        if alike:
            shown = "; ".join(" and ".join(shown_id(label) for label in group[:2]) for group in alike[:MAX_PAIRS])
            more = f" and {len(alike) - MAX_PAIRS} more pairs" if len(alike) > MAX_PAIRS else ""
            message = f"Some {role} ids (column '{name}') {what} and are kept as different: {shown}{more}."
            found.append(
                _warning(code, name, [g[0] for g in alike], message, f"If they are one {role}, give them one spelling.")
            )
    return found


def _combined(labels: list[str], role: str, name: str) -> list[Finding]:
    known = set(labels)
    several = [
        label for label in labels if len(parts := SEVERAL.split(label)) > 1 and all(part in known for part in parts)
    ]
    if not several:
        return []
    message = f"Some {role} ids (column '{name}') are made of several others: {shown_ids(several)}."
    remedy = f"Each would count as one more {role}. Name the one {role} to whom the sessions belong."
    return [_warning("ids-combined", name, several, message, remedy)]


def code_ids(numbers: Mapping[str, int], *, role: str, name: str) -> list[Finding]:
    """Return a warning where a numeric id is a usual code for missing values (-99, 999, ...) unlike all others.

    Parameters
    ----------
    numbers : mapping of id to its number
    role, name : str
        As in `doubtful_ids`.
    """
    others = [number for number in numbers.values() if number not in CODES]
    if len(others) < 2:
        return []
    low, high = min(others), max(others)
    coded = [
        label
        for label, number in numbers.items()
        if number in CODES and (number < 0 <= low or number > FAR * max(high, 1))
    ]
    if not coded:
        return []
    message = f"The {role} id {shown_ids(coded)} (column '{name}') looks like a code for a missing id."
    remedy = f"It would count as one {role}. Leave its sessions out, or rename it if it is a real {role}."
    return [_warning("ids-missing-code", name, coded, message, remedy)]


def _dates(labels: list[str], role: str, name: str) -> list[Finding]:
    dated = [label for label in labels if DATE.fullmatch(label) or SPREADSHEET_DATE.fullmatch(label)]
    if not dated:
        return []
    message = f"{len(dated)} of {len(labels)} {role} ids (column '{name}') look like dates: {shown_ids(dated)}."
    remedy = "A spreadsheet turns ids such as 3-1 into dates, and a date of birth identifies: check them, use codes."
    return [_warning("ids-look-like-dates", name, dated, message, remedy)]


def _warning(code: str, name: str, labels: list[str], message: str, remedy: str) -> Finding:
    severity: Severity = "warning"
    ids = tuple(shown_id(label) for label in labels[:MAX_IDS_IN_MESSAGE])
    return Finding(severity, code, name, ids, message, remedy)

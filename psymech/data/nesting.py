"""How sessions nest in patients, therapists and clinics: codes, parents, repeated ids and sessions, row order."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, get_args

import numpy as np

from psymech.data.findings import Finding
from psymech.data.ids import as_key, factorized
from psymech.data.table import Table
from psymech.errors import DataError, shown_id, shown_ids
from psymech.names import LEVELS, Level

PatientIds = Literal["unique", "nested", "crossed"]
PATIENT_IDS: Final[tuple[PatientIds, ...]] = get_args(PatientIds)
JOIN: Final = "/"


@dataclass(frozen=True, slots=True)
class Nesting:
    """The levels present, with the labels of their units, the unit of each row and the parent of each unit."""

    ids: Mapping[Level, np.ndarray]
    codes: Mapping[Level, np.ndarray]
    parents: Mapping[Level, np.ndarray]
    patient_ids: PatientIds
    notes: tuple[Finding, ...]


def nest(labels: Mapping[Level, np.ndarray], roles: Mapping[str, str | None], patient_ids: PatientIds) -> Nesting:
    """Return the nesting of the rows.

    Parameters
    ----------
    labels : mapping of level to ndarray, shape (n_rows,)
        Exact ids of each row, lowest level first.
    roles : mapping of role to column name
    patient_ids : {"unique", "nested", "crossed"}
        "nested": patient numbers restart under each therapist, so patients become "<therapist>/<patient>".
        "crossed": a patient may really see several therapists; patients then have no parent.

    Raises
    ------
    DataError
        A patient under several therapists with "unique" ids, or a therapist in several clinics.
    """
    if patient_ids not in PATIENT_IDS:
        raise DataError(f"patient_ids expects one of {', '.join(PATIENT_IDS)}, but got {patient_ids!r}.")
    levels: list[Level] = [level for level in LEVELS if level in labels]
    own: dict[Level, np.ndarray] = dict(labels)
    if patient_ids == "nested" and len(levels) > 1:
        own["patient"] = joined(own[levels[1]], own["patient"])
    found = {level: factorized(own[level]) for level in levels}
    ids: dict[Level, np.ndarray] = {level: found[level][0] for level in levels}
    codes: dict[Level, np.ndarray] = {level: found[level][1] for level in levels}
    parents: dict[Level, np.ndarray] = {}
    notes: list[Finding] = []
    crossed = False
    for level, above in pairwise(levels):
        parent, several = _parents(codes[level], codes[above], len(ids[level]))
        if several.size == 0:
            parents[level] = parent
        elif level == "patient" and patient_ids == "crossed":
            crossed = True
            notes.append(_crossed_note(ids[level], several, above, roles))
        else:
            raise DataError(_several_message(level, above, ids, codes, several, roles))
    return Nesting(ids, codes, parents, patient_ids if crossed or patient_ids != "crossed" else "unique", tuple(notes))


def joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the labels "<upper>/<lower>", refusing pairs that would come out the same."""
    pairs = {(as_key(a), as_key(b)) for a, b in zip(upper.tolist(), lower.tolist(), strict=True)}
    if len({f"{a}{JOIN}{b}" for a, b in pairs}) < len(pairs):
        raise DataError(
            f"patient_ids='nested' joins therapist and patient ids with '{JOIN}', but some ids hold it and would "
            "merge. Rename them."
        )
    labels = np.empty(len(upper), dtype=object)
    labels[:] = [f"{as_key(a)}{JOIN}{as_key(b)}" for a, b in zip(upper.tolist(), lower.tolist(), strict=True)]
    return labels


def _parents(codes: np.ndarray, above: np.ndarray, n_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one parent a unit, and the units that have several."""
    parent = np.zeros(n_units, dtype=np.int64)
    parent[codes] = above
    several = np.unique(codes[parent[codes] != above])
    return parent, several


def _crossed_note(labels: np.ndarray, several: np.ndarray, above: Level, roles: Mapping[str, str | None]) -> Finding:
    ids = tuple(shown_id(label) for label in labels[several[:5]])
    message = (
        f"{several.size} of {len(labels)} patients have sessions under several {above}s; "
        f"patients are crossed with {above}s."
    )
    return Finding("note", "patients-crossed", str(roles.get("patient")), ids, message, "")


def _several_message(
    level: Level,
    above: Level,
    ids: Mapping[Level, np.ndarray],
    codes: Mapping[Level, np.ndarray],
    several: np.ndarray,
    roles: Mapping[str, str | None],
) -> str:
    first = several[0]
    homes = ids[above][np.unique(codes[above][codes[level] == first])]
    what = (
        f"{several.size} of {len(ids[level])} {level} ids (column '{roles.get(level)}') are not unique: each has "
        "rows under "
        f"several {above}s (more than one {above}): {shown_ids(ids[level][several])}; "
        f"{level} {shown_id(ids[level][first])} is under {above} {shown_ids(homes)}."
    )
    folded = {str(home).casefold().replace(" ", "") for home in homes.tolist()}
    if len(folded) < len(homes):
        what += f" Some of these {above} ids differ only in upper and lower case or spaces: give them one spelling."
    if level == "patient" and above == "therapist":
        return (
            f"{what} If numbers are reused and restart under each therapist, pass patient_ids='nested'; if patients "
            "really "
            "changed therapist, pass patient_ids='crossed'; else make the ids unique."
        )
    if level == "patient":
        return f"{what} If numbers are reused in each {above}, pass patient_ids='nested'; else make the ids unique."
    return f"{what} Make the {level} ids unique, for example by joining the {above} id to them."


def canonical_order(nesting: Nesting, session: np.ndarray) -> np.ndarray:
    """Return the positions of the rows sorted by clinic, therapist, patient and session."""
    highest_last = [nesting.codes[level] for level in LEVELS if level in nesting.codes]
    return np.lexsort((session, *highest_last))


def refuse_repeated_sessions(
    nesting: Nesting, session: np.ndarray, table: Table, roles: Mapping[str, str | None]
) -> None:
    """Raise DataError where a patient has two rows with one session number, saying whether the rows are the same."""
    codes = nesting.codes["patient"]
    order = np.lexsort((session, codes))
    again = order[1:][(codes[order][1:] == codes[order][:-1]) & (session[order][1:] == session[order][:-1])]
    if not again.size:
        return
    again = np.sort(again)
    patients = nesting.ids["patient"][np.unique(codes[again])]
    before = dict(zip(order[1:].tolist(), order[:-1].tolist(), strict=True))
    exact = sum(_same_row(table, int(row), before[int(row)]) for row in again)
    above: Level | None = next((level for level in LEVELS[1:] if level in nesting.codes), None)
    held = [] if above is None else [nesting.codes[above][r] != nesting.codes[above][before[int(r)]] for r in again]
    both = f" In {sum(held)} of them two {above}s are named for one session: keep one row." if any(held) else ""
    places = f"column '{roles.get('session')}', {table.where(again)}, patient {shown_ids(patients)}"
    if exact == again.size:
        raise DataError(
            f"{again.size} duplicate {'row' if again.size == 1 else 'rows'}: each repeats a row of the same patient "
            f"and session exactly ({places}). "
            "Remove the duplicates."
        )
    raise DataError(
        f"{again.size} {'row repeats' if again.size == 1 else 'rows repeat'} a session number that the patient "
        "already has "
        f"(duplicate session numbers, ties; {places}); {exact} of them are exact copies. Number each patient's "
        "sessions so that each appears once; a calendar unit, "
        f"such as weeks, goes into time=.{both}"
    )


def _same_row(table: Table, row: int, other: int) -> bool:
    return all(column.shown(row) == column.shown(other) for column in table.columns.values())

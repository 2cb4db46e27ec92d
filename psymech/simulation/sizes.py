"""Sizes of a simulated table, and who is seen when."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psymech.arguments import is_number, is_whole
from psymech.errors import SpecError

DROPOUT_FROM = 3  # nobody drops out before this many sessions (or all of them, where fewer are planned)
CERTAIN = 2  # sessions at the start that are never missing, so that every patient has a session with a predecessor


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many units, and how ragged.

    Attributes
    ----------
    therapists : number of therapists, or None for a table of patients without therapists.
    patients : patients per therapist (all patients where there are no therapists).
    sessions : planned sessions per patient, numbered from 1.
    patients_spread, sessions_spread : the numbers are uniform within plus or minus this much.
    gaps : probability that a session after the second leaves no row.
    dropout : probability, at each session after the third, that a patient does not come again.
    missing : share of outcomes that are missing, likelier where the patient's outcome before was high (MAR).
    clinics : number of clinics, over which therapists are spread as evenly as can be, or None.
    switching : probability that a patient with two sessions or more changes therapist once, at a session drawn evenly
        from the second on; patients are then crossed with therapists.

    Examples
    --------
    >>> Sizes(therapists=8, patients=6, patients_spread=3, dropout=0.02).sessions
    12
    """

    therapists: int | None = 20
    patients: int = 8
    sessions: int = 12
    patients_spread: int = 0
    sessions_spread: int = 0
    gaps: float = 0.0
    dropout: float = 0.0
    missing: float = 0.0
    clinics: int | None = None
    switching: float = 0.0

    def __post_init__(self) -> None:
        for name in ("therapists", "clinics"):
            value = getattr(self, name)
            if value is not None and not (is_whole(value) and value >= 1):
                raise SpecError(f"Sizes.{name}: expected 1 or more, or None, found {value!r}.")
        for name, spread in (("patients", self.patients_spread), ("sessions", self.sessions_spread)):
            if not (is_whole(getattr(self, name)) and getattr(self, name) >= 1):
                raise SpecError(f"Sizes.{name}: expected 1 or more, found {getattr(self, name)!r}.")
            if not (is_whole(spread) and 0 <= spread < getattr(self, name)):
                raise SpecError(f"Sizes.{name}_spread: expected 0 up to {getattr(self, name) - 1}, found {spread!r}.")
        for name in ("gaps", "dropout", "missing", "switching"):
            if not (is_number(getattr(self, name)) and 0 <= getattr(self, name) < 1):
                raise SpecError(f"Sizes.{name}: expected a probability below 1, found {getattr(self, name)!r}.")
        if self.therapists is None and self.clinics is not None:
            raise SpecError("Sizes.clinics: clinics hold therapists, but therapists=None.")
        if self.clinics is not None and self.therapists is not None and self.clinics > self.therapists:
            raise SpecError(
                f"Sizes.clinics: expected at most {self.therapists}, one a therapist, found {self.clinics}."
            )
        if self.switching and (self.therapists or 0) < 2:
            raise SpecError(f"Sizes.switching: needs two therapists or more, found therapists={self.therapists!r}.")


def numbered(letter: str, count: int) -> NDArray[np.str_]:
    """Return labels that sort in the order of their numbers: T01, T02, ...

    >>> numbered("T", 2).tolist()
    ['T01', 'T02']
    """
    width = max(2, len(str(count)))
    return np.array([f"{letter}{i + 1:0{width}d}" for i in range(count)])


def schedule(sizes: Sizes, rng: np.random.Generator) -> pd.DataFrame:
    """Return one row a session, sorted: columns clinic and therapist (where there are any), patient, session."""
    groups = 1 if sizes.therapists is None else sizes.therapists
    caseload = sizes.patients + rng.integers(-sizes.patients_spread, sizes.patients_spread + 1, groups)
    therapist = np.repeat(np.arange(groups), caseload)
    planned = sizes.sessions + rng.integers(-sizes.sessions_spread, sizes.sessions_spread + 1, therapist.size)
    patient = np.repeat(np.arange(planned.size), planned)
    session = np.concatenate([np.arange(1, n + 1) for n in planned])

    leaves = (rng.random(session.size) < sizes.dropout) & (session > DROPOUT_FROM)
    last = np.full(planned.size, np.iinfo(np.int64).max)
    np.minimum.at(last, patient[leaves], session[leaves] - 1)
    gone = session > last[patient]
    gap = (rng.random(session.size) < sizes.gaps) & (session > CERTAIN)
    keep = ~gone & ~gap

    patient, session = patient[keep], session[keep]
    holder = therapist[patient]
    if sizes.switching:
        holder = _switched(holder, patient, sizes, rng)
        order = np.lexsort((session, patient, holder))
        patient, session, holder = patient[order], session[order], holder[order]
    columns: dict[str, object] = {}
    if sizes.therapists is not None:
        labels = numbered("T", groups)
        if sizes.clinics is not None:
            clinic = np.arange(groups) * sizes.clinics // groups
            columns["clinic"] = numbered("C", sizes.clinics)[clinic[holder]]
        columns["therapist"] = labels[holder]
    columns["patient"] = numbered("P", planned.size)[patient]
    columns["session"] = session
    return pd.DataFrame(columns)


def _switched(
    therapist: NDArray[np.int64], patient: NDArray[np.int64], sizes: Sizes, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Therapist of each session, of which some patients have another one from some session on; rows by patient."""
    n = np.bincount(patient)
    starts = np.cumsum(n) - n
    place = np.arange(patient.size) - starts[patient]
    changes = (rng.random(n.size) < sizes.switching) & (n > 1)
    at = rng.integers(1, np.maximum(n, 2))
    step = rng.integers(1, sizes.therapists or 2, n.size)
    later = (therapist + step[patient]) % (sizes.therapists or 1)
    return np.where(changes[patient] & (place >= at[patient]), later, therapist)

"""Every error and warning that psymech raises on purpose.

An error message says what was expected, what was found, in which column and whose ids (five at most), and what to do.
"""

from collections.abc import Iterable, Sequence

MAX_IDS_IN_MESSAGE = 5
MAX_ID_CHARACTERS = 60


class PsymechError(ValueError):
    """Base class of every error that psymech raises on purpose."""


class DataError(PsymechError):
    """The table cannot be used as it is: an id is missing, a number is not a number, a file is damaged."""


class DesignError(PsymechError):
    """The table is sound, but the model asked for cannot be estimated from this design."""


class SpecError(PsymechError):
    """The specification contradicts itself, or names something that does not exist."""


class UnavailableError(SpecError, NotImplementedError):
    """The model is a sensible one, but this version does not have it."""


class NotCollapsibleError(SpecError):
    """The collapsed Gaussian engine is not exact for this model; the explicit engine is."""


class DesignWarning(UserWarning):
    """The model can be fitted, but the design makes some of its answers uncertain."""


def shown_id(label: object) -> str:
    """Return an id as it may stand in a message: printable and short."""
    text = label if isinstance(label, str) else str(label)
    if len(text) > MAX_ID_CHARACTERS:
        text = f"{text[:MAX_ID_CHARACTERS]}... ({len(text)} characters)"
    return repr(text) if (text != text.strip() or not text.isprintable() or not text) else text


def shown_ids(labels: Iterable[object]) -> str:
    """Return at most five ids, and how many more there are.

    >>> shown_ids(["P1", "P2"])
    'P1, P2'
    >>> shown_ids(range(8))
    '0, 1, 2, 3, 4 and 3 more'
    """
    every: Sequence[object] = list(labels)
    text = ", ".join(shown_id(label) for label in every[:MAX_IDS_IN_MESSAGE])
    rest = len(every) - MAX_IDS_IN_MESSAGE
    return f"{text} and {rest} more" if rest > 0 else text

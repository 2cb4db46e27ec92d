"""Arguments of public functions read and refused in one wording."""

from collections.abc import Mapping
from math import isfinite
from numbers import Integral, Real

from psymech.errors import SpecError

Kinds = type | tuple[type, ...]


def is_number(value: object) -> bool:
    """Whether a value is a finite number, true and false aside."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def is_whole(value: object) -> bool:
    """Whether a value is an integer of Python or NumPy, true and false aside."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def finite(value: float, argument: str) -> float:
    """Return a finite number; SpecError otherwise.

    >>> finite(0, "threshold")
    0.0
    """
    if not is_number(value):
        raise SpecError(f"{argument}: expected a number, found {value!r}.")
    return float(value)


def positive(value: float, argument: str) -> float:
    """Return a finite number above zero; SpecError otherwise."""
    if not (is_number(value) and value > 0):
        raise SpecError(f"{argument}: expected a number above zero, found {value!r}.")
    return float(value)


def between(value: float, argument: str) -> float:
    """Return a number above 0 and below 1; SpecError otherwise, with the share meant by a percentage."""
    if not (is_number(value) and 0 < value < 1):
        hint = f" Did you mean {value / 100:g}?" if is_number(value) and 1 < value < 100 else ""
        raise SpecError(f"{argument}: expected a number between 0 and 1, found {value!r}.{hint}")
    return float(value)


def whole(value: int, argument: str, *, lowest: int = 1) -> int:
    """Return a whole number, `lowest` or larger; SpecError otherwise."""
    if not (is_whole(value) and value >= lowest):
        found = "above zero" if lowest == 1 else f"from {lowest} on"
        raise SpecError(f"{argument}: expected a whole number {found}, found {value!r}.")
    return int(value)


def checked_seed(seed: int | None) -> int | None:
    """Return the seed; SpecError where it is neither None nor a whole number from 0 on."""
    return None if seed is None else whole(seed, "seed", lowest=0)


def mapping(value: object, argument: str, example: str) -> None:
    """Raise SpecError where a value is no mapping."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{argument}: expected a mapping such as {example}, found {value!r}.")


def instance(value: object, kinds: Kinds, argument: str, advice: str) -> None:
    """Raise SpecError where an argument is of another type, with what to pass instead."""
    if not isinstance(value, kinds):
        raise SpecError(f"{argument}: expected {advice}, found {type(value).__name__}.")

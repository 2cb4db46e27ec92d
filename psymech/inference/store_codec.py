"""A design and its priors as JSON and plain arrays, and back: no pickle, and no class that psymech does not name."""

import io
import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from psymech.design import Design
from psymech.errors import DataError, SpecError
from psymech.priors import ChosenPriors
from psymech.spec.model import ModelSpec

JSON_NAME: Final = "json"


def encode(value: object) -> bytes:
    """Return a value made of dataclasses, tuples, mappings, arrays, text and numbers as the bytes of a .npz file.

    Raises
    ------
    SpecError
        The value holds something else.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encoded(value, arrays))
    return npz(arrays | {JSON_NAME: np.frombuffer(text.encode(), dtype=np.uint8)})


def decode(content: bytes) -> Any:
    """Return what :func:`encode` took."""
    arrays = read_npz(content)
    return _decoded(json.loads(arrays.pop(JSON_NAME).tobytes()), arrays)


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays of numbers as the bytes of a .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file; pickled objects are refused."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file.items())


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OU":
            return {"texts": [str(each) for each in value.flat], "dtype": value.dtype.kind, "shape": value.shape}
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, int | float | np.number | np.bool_):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encoded(each, arrays) for each in value]}
    if isinstance(value, Mapping):
        return {"map": [[_encoded(key, arrays), _encoded(each, arrays)] for key, each in value.items()]}
    if is_dataclass(value) and type(value).__name__ in _classes():
        each = {field.name: _encoded(getattr(value, field.name), arrays) for field in fields(value)}
        return {"class": type(value).__name__, "fields": each}
    raise SpecError(f"store= cannot keep a {type(value).__name__}, which this model holds. Sample without store=.")


def _decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "texts" in value:
        texts = np.array(value["texts"], dtype=object if value["dtype"] == "O" else None)
        return texts.reshape(value["shape"])
    if "tuple" in value:
        return tuple(_decoded(each, arrays) for each in value["tuple"])
    if "list" in value:
        return [_decoded(each, arrays) for each in value["list"]]
    if "map" in value:
        return {_decoded(key, arrays): _decoded(each, arrays) for key, each in value["map"]}
    found = _classes().get(value["class"])
    if found is None:
        raise DataError(f"The store names {value['class']!r}, which this version of psymech does not know.")
    return found(**{name: _decoded(each, arrays) for name, each in value["fields"].items()})


@cache
def _classes() -> dict[str, Any]:
    """Return the dataclasses that a design and its priors are made of, by name."""
    found: dict[str, Any] = {}
    _collect(ModelSpec, found)
    _collect(Design, found)
    _collect(ChosenPriors, found)
    return found


def _collect(kind: Any, found: dict[str, Any]) -> None:
    if is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ in found:
            return
        found[kind.__name__] = kind
        for hint in typing.get_type_hints(kind).values():
            _collect(hint, found)
    kind = getattr(kind, "__value__", kind)  # of a type alias
    for part in typing.get_args(kind):
        _collect(part, found)

"""Checksums of a tree: the same before a file and after it, whatever the format, and one for each part."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech.errors import shown_ids

Groups = dict[str, xr.Dataset]
Attributes = dict[str, Any]
Digests = dict[str, str]

PART_DIGITS: Final = 16
ATTRIBUTES: Final = "attributes"


def digests(groups: Groups, attrs: Attributes) -> Digests:
    """SHA-256 of each variable (name, dims, type, shape, bytes, attributes), and of the attributes of each group."""
    parts = {ATTRIBUTES: _sha(_canonical(attrs).encode())}
    for group, dataset in groups.items():
        if group != "/":
            parts[f"{group.strip('/')}/{ATTRIBUTES}"] = _sha(_canonical(dataset.attrs).encode())
        for name, variable in dataset.variables.items():
            values = np.asarray(variable.values)
            head = [
                str(name),
                *map(str, variable.dims),
                _kind(values),
                *map(str, values.shape),
                _canonical(variable.attrs),
            ]
            role = "coordinate" if name in dataset.coords else "variable"
            digest = hashlib.sha256(json.dumps([role, *head]).encode())
            for piece in _bytes(values):
                digest.update(piece)
            parts[f"{group.strip('/')}/{name}".lstrip("/")] = digest.hexdigest()
    return parts


def _kind(values: NDArray) -> str:
    return "text" if values.dtype.kind in "OUT" else values.dtype.newbyteorder("<").str


def _bytes(values: NDArray) -> Iterator[bytes | memoryview]:
    if values.dtype.kind not in "OUT":
        yield memoryview(
            np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).reshape(-1)
        ).cast("B")
        return
    for text in values.flat:
        encoded = str(text).encode()
        yield len(encoded).to_bytes(8, "little") + encoded


def _canonical(attrs: Attributes) -> str:
    """Attributes as text that is the same before and after a file: scalars and one-element lists are one thing."""
    return json.dumps({str(name): _items(value) for name, value in attrs.items()}, sort_keys=True)


def _items(value: object) -> list[str]:
    listed = np.asarray(value).reshape(-1).tolist() if not isinstance(value, str) else [value]
    return [f"{type(v).__name__}:{v!r}" if not isinstance(v, bool) else f"int:{int(v)!r}" for v in listed]


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def total(parts: Digests) -> str:
    """Return the one checksum of all parts."""
    return _sha(json.dumps(parts, sort_keys=True).encode())


def short(parts: Digests) -> str:
    """Return the beginnings of the parts' checksums as JSON."""
    return json.dumps({name: digest[:PART_DIGITS] for name, digest in parts.items()})


def differing(expected: Digests, found: Digests) -> list[str]:
    """Return the names of the parts that are not the same in both."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def where(found: Digests, named: object) -> str:
    """Return the parts that differ from those named in a file, in words; empty where that cannot be told."""
    try:
        expected = {str(name): str(digest) for name, digest in json.loads(str(named)).items()}
    except (ValueError, AttributeError):
        return ""
    parts = differing(expected, {name: digest[:PART_DIGITS] for name, digest in found.items()})
    return f", in {shown_ids(parts)}" if parts else ""

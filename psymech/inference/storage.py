"""save() and load(): a fitted tree on disk that is whole or absent, and that says so when it has been damaged.

A file is written under a temporary name in the same folder, flushed to the disk, read back and compared by checksum,
and only then given its name: what stood there before stays untouched until the new file is known to be right.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import xarray as xr

from psymech import __version__, names
from psymech.arguments import instance
from psymech.errors import DataError, PsymechError, shown_ids
from psymech.inference.digests import Attributes, Digests, Groups, differing, digests, short, total, where
from psymech.inference.run_folder import is_run
from psymech.inference.seal import REMEDY, check_seal, seal
from psymech.posterior import tree as read
from psymech.posterior.caseload import caseload
from psymech.posterior.kept_counts import KEPT, UPPER, counts_to_keep
from psymech.posterior.tree import ATTR_DATA, DATA_LEFT_OUT, refuse_other
from psymech.spec.model import one_of

Format = Literal[".nc", ".zarr"]
FORMATS: Final[tuple[Format, ...]] = (".nc", ".zarr")
ATTR_SHA256: Final = "psymech_sha256"  # of everything in the file
ATTR_PARTS: Final = "psymech_sha256_parts"  # JSON: the beginning of the SHA-256 of each part, to name what is damaged
DATA_DIMS: Final = {names.OBS, names.COLUMN, names.MISSING}  # of variables that hold the table's values, or estimates
NESTING: Final = frozenset(names.parent_of_unit(a, b) for a, b in combinations(names.LEVELS, 2))
NAMING: Final = frozenset({names.ATTR_NOTES, names.ATTR_PRIOR_NOTES})  # attributes that may name units or quote values
ASIDE: Final = ".old"  # ends the name of a folder that is being replaced
REMOVAL_SECONDS: Final = 10.0  # for writers that are still at work in what is to be removed
REMOVAL_PAUSE: Final = 0.05
SETTLED: Final = 3  # looks in a row at which a removed folder has not come back
COMPRESSION_LEVEL: Final = 1  # posterior draws hardly compress; this is nearly free
ONE_CHUNK_BYTES: Final = 2**25  # a zarr variable up to this size is one file, a larger one is one file a chain


def save(
    tree: xr.DataTree, path: str | Path, *, data: bool = True, level: Literal["unit", "population"] = "unit"
) -> Path:
    """Write a fitted tree to a file that stands alone: ``.nc`` (netCDF) or ``.zarr`` (a folder).

    The file carries a SHA-256 of all its variables, coordinates and attributes, and one of its bytes. It takes its name
    only after it has been read back and found equal; if anything fails, a file of that name stays as it was. No pickle
    is written. xarray and ArviZ read the file too.

    Parameters
    ----------
    tree
        A fitted tree.
    path
        Where to; the ending chooses the format. An existing file is replaced.
    data
        False leaves out whatever has one value a session: the outcome, the design columns, session numbers, times and
        which row belongs to whom; the means of patients and therapists; and the notes on the table, which may quote
        values. Draws of the effects of patients and therapists with their ids stay, and they are personal data too; so
        do the numbers of patients of therapists and clinics, and of their sessions from five patients on.
        Estimates that need the sessions say so.
    level
        ``"population"`` leaves out, beside the data, whatever has one value a patient, therapist or clinic, and all
        ids: fixed effects, SDs, correlations and residuals stay. See docs/privacy.md.

    Returns
    -------
    Path
        The path written.

    Raises
    ------
    DataError
        Another ending, no such folder, something that a file cannot hold, or a file that could not be written whole,
        for instance because the disk is full.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.save(tree, "fit.nc").name
    'fit.nc'
    """
    refuse_other(tree)
    instance(data, bool, "data", "True or False")
    instance(path, (str, os.PathLike), "path", "a file name")
    path = Path(path)
    one_of(level, ("unit", "population"), "level")
    _check_place(path, path.resolve(), file_format(path))
    write(population_only(tree) if level == "population" else tree if data else without_data(tree), path)
    return path


def write(tree: xr.DataTree, path: Path) -> None:
    """Write a tree in place of whatever stands at the path; the place has been checked."""
    format_, target = file_format(path), path.resolve()
    if names.ATTR_VERSION not in tree.attrs or names.POSTERIOR not in tree.children:
        raise DataError(
            f"expected a fitted tree with the attribute {names.ATTR_VERSION!r} and the group {names.POSTERIOR!r}, "
            f"found the groups {', '.join(tree.children) or 'none'}. Save what psymech.fit or psymech.sample returned."
        )
    groups, attrs = _contents(tree)
    parts = digests(groups, attrs)
    attrs |= {ATTR_SHA256: total(parts), ATTR_PARTS: short(parts)}
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _write(groups, attrs, temporary, format_)
        seal(temporary)
        _flush(temporary)
        written = _read(temporary, format_, hash_only=True)
        if written[1] != parts:
            raise OSError(f"what was read back differs in {shown_ids(differing(parts, written[1]))}")
        _take_name(temporary, target)
    except Exception as problem:
        raise DataError(
            f"Could not write {path.name!r} whole: {_words(problem)}. "
            f"{'The file of that name is as it was' if target.exists() else 'No file was made'}. "
            "Is the disk full, or may the folder not be written to?"
        ) from problem
    finally:
        _remove(temporary)


def load(path: str | Path) -> xr.DataTree:
    """Read a tree that :func:`save` wrote, after checking that it is complete and unchanged.

    A file is read by the psymech versions that share its first two version numbers; others refuse it.

    Parameters
    ----------
    path
        A ``.nc`` file or a ``.zarr`` folder.

    Returns
    -------
    DataTree
        In memory; the file is closed.

    Raises
    ------
    DataError
        No such file, not a fit of psymech, written by another version, cut off or changed since it was written. Where
        it can be told, the message names what differs.

    Examples
    --------
    >>> import psymech as psm
    >>> path = psm.save(tree, "fit.nc")
    >>> psm.load(path).identical(tree)
    True
    """
    instance(path, (str, os.PathLike), "path", "a file name")
    path = Path(path)
    format_ = file_format(path)
    _check_exists(path, format_)
    check_seal(path)
    try:
        attrs, parts, groups = _read(path, format_, hash_only=False)
    except Exception as problem:
        raise DataError(
            f"{path.name!r} is not a complete psymech fit: it cannot be read ({_words(problem)}). "
            f"It was cut off or changed, or it never was a fit. {REMEDY}"
        ) from problem
    stored, named = attrs.pop(ATTR_SHA256, None), attrs.pop(ATTR_PARTS, None)
    _check_origin(path, attrs, groups)
    if stored is None:
        raise DataError(
            f"{path.name!r} carries no checksum ({ATTR_SHA256}), so it was not written by psymech.save. "
            "Fit again, and save the fit with psymech.save."
        )
    if total(parts) != stored:
        raise DataError(
            f"{path.name!r} is damaged: its checksum differs from the one it was saved with{where(parts, named)}. "
            f"{REMEDY}"
        )
    tree = xr.DataTree.from_dict(dict(groups))
    tree.attrs = attrs
    return tree


def without_data(tree: xr.DataTree) -> xr.DataTree:
    """Return the tree without any variable that has one value a session, a unit's means and the notes on the table.

    Of the constant data the nesting stays, which patient belongs to which therapist, and the caseloads of therapists
    and clinics join it.
    """
    groups: dict[str, xr.Dataset] = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        kept = dataset.drop_vars([name for name, v in dataset.variables.items() if DATA_DIMS & set(v.dims)])
        if node.path == f"/{names.CONSTANT_DATA}":
            kept = kept[[name for name in kept.data_vars if name in NESTING | KEPT]]
            kept = kept.assign(_counts(tree))
        if kept.data_vars or not dataset.data_vars:
            groups[node.path] = kept
    new = xr.DataTree.from_dict(groups)
    new.attrs = {name: value for name, value in tree.attrs.items() if name != names.ATTR_NOTES}
    new.attrs |= {ATTR_DATA: DATA_LEFT_OUT}
    return new


def _counts(tree: xr.DataTree) -> dict[str, xr.Variable]:
    """Caseloads of therapists and clinics, sessions of few patients left out; none of a fit that has lost its rows."""
    found: dict[str, xr.Variable] = {}
    if read.saved_without_rows(tree):
        return found
    for level in read.levels_of(tree):
        if level in UPPER:
            with suppress(PsymechError):  # what cannot be counted is not kept; caseload() of the file says so
                found |= counts_to_keep(caseload(tree, level=level), read.unit_labels(tree, level), level)
    return found


def population_only(tree: xr.DataTree) -> xr.DataTree:
    """Return the tree without data and without any variable or coordinate of a patient, therapist or clinic."""
    groups: dict[str, xr.Dataset] = {}
    for node in without_data(tree).subtree:
        dataset = node.to_dataset(inherit=False)
        units = {dim for dim in dataset.dims if dim in names.LEVELS}
        kept = dataset.drop_vars([name for name, v in dataset.variables.items() if units & set(v.dims)])
        if node.path not in (f"/{names.CONSTANT_DATA}", f"/{names.OBSERVED_DATA}"):
            groups[node.path] = kept
    new = xr.DataTree.from_dict(groups)
    new.attrs = {name: value for name, value in tree.attrs.items() if name not in NAMING}
    new.attrs |= {ATTR_DATA: DATA_LEFT_OUT, "effects_kept": "[]"}
    return new


def file_format(path: Path) -> Format:
    """Return the format that a file's ending chooses."""
    for format_ in FORMATS:
        if path.suffix == format_:
            return format_
    raise DataError(
        f"expected a file name that ends in {' or '.join(FORMATS)}, found {path.name!r}. "
        "Write .nc for one file, .zarr for a folder."
    )


def _check_place(path: Path, target: Path, format_: Format) -> None:
    if is_run(target):
        raise DataError(
            f"{path.name!r} holds a run that has not come to its end, so it is not replaced. Go on with it: "
            f"psymech.resume({path.name!r}), or delete it."
        )
    if not target.parent.is_dir():
        raise DataError(f"The folder {str(path.parent)!r} does not exist. Make it first, or name another.")
    if format_ == ".nc" and target.is_dir():
        raise DataError(f"{path.name!r} is a folder, expected a file or nothing there. Name another file.")
    if format_ == ".zarr" and target.exists() and not _is_store(target):
        raise DataError(f"{path.name!r} exists and is not a zarr store, so it is not replaced. Name another folder.")


def _is_store(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in (".zgroup", ".zmetadata", "zarr.json"))


def _check_exists(path: Path, format_: Format) -> None:
    if is_run(path):
        raise DataError(
            f"{path.name!r} holds a run that has not come to its end. Go on with psymech.resume({path.name!r}), or "
            f"read what is there with psymech.salvage({path.name!r})."
        )
    if not path.exists():
        raise DataError(f"There is no {path.name!r} in {str(path.parent)!r}. Check the name and the folder.")
    if format_ == ".nc" and not path.is_file():
        raise DataError(f"{path.name!r} is a folder, expected a netCDF file.")
    if format_ == ".nc" and path.stat().st_size == 0:
        raise DataError(f"{path.name!r} is not a complete psymech fit: it has 0 bytes. Take a copy that is whole.")
    if format_ == ".zarr" and not _is_store(path):
        raise DataError(f"{path.name!r} is not a complete psymech fit: it is no zarr store. Take a copy that is whole.")


def _check_origin(path: Path, attrs: Attributes, groups: Groups) -> None:
    version = attrs.get(names.ATTR_VERSION)
    if not isinstance(version, str) or names.ATTR_SPEC not in attrs or f"/{names.POSTERIOR}" not in groups:
        found = ", ".join(name.strip("/") for name in groups if name != "/") or "none"
        raise DataError(
            f"{path.name!r} is not a fit of psymech: expected the attributes {names.ATTR_VERSION!r} and "
            f"{names.ATTR_SPEC!r} and the group {names.POSTERIOR!r}; its groups are: {found}."
        )
    own, theirs = _minor(__version__), _minor(version)
    if theirs is None:
        raise DataError(
            f"{path.name!r} says it was written by version {version!r} of psymech, which is no version number."
        )
    assert own is not None
    if theirs > own:
        raise DataError(
            f"{path.name!r} was written by psymech {version}, which is newer than this one ({__version__}). "
            f"Install psymech {theirs[0]}.{theirs[1]} or later to read it."
        )
    if theirs < own:
        raise DataError(
            f"{path.name!r} was written by psymech {version}; this is {__version__}, and what a fit holds changes with "
            f"the first two numbers. Read it with psymech {theirs[0]}.{theirs[1]}, or fit again."
        )


def _minor(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)(?!\d)", version)
    return None if found is None else (int(found[1]), int(found[2]))


def _contents(tree: xr.DataTree) -> tuple[Groups, Attributes]:
    """Return the groups, each variable as a plain array that a file can hold, and the root's attributes."""
    groups = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        plain = {str(name): _plain(node.path, str(name), variable) for name, variable in dataset.variables.items()}
        own = {name: v for name, v in plain.items() if name not in dataset.coords}
        coords = {name: v for name, v in plain.items() if name in dataset.coords}
        attrs = {} if node is tree else dataset.attrs
        _check_attributes(node.path, attrs)
        groups[node.path] = xr.Dataset(own, coords=coords, attrs=attrs)
    attrs = {str(name): value for name, value in tree.attrs.items() if name not in (ATTR_SHA256, ATTR_PARTS)}
    _check_attributes("/", attrs)
    return groups, attrs


def _check_attributes(owner: str, attrs: Mapping[Any, object]) -> None:
    for name, value in attrs.items():
        listed = value if isinstance(value, list | tuple) else np.asarray(value).reshape(-1).tolist()
        if not all(isinstance(v, str | int | float | np.number) for v in listed):
            raise DataError(
                f"the attribute {name!r} of {owner!r} is of type {type(value).__name__}, which a file cannot hold. "
                "Give numbers or text (JSON for anything with parts)."
            )


def _plain(group: str, name: str, variable: xr.Variable) -> xr.Variable:
    _check_attributes(f"{group}/{name}", variable.attrs)
    values = np.asarray(variable.values)
    if values.dtype.kind in "OUT":
        values = values.astype(object)
        wrong = next((v for v in values.flat if not isinstance(v, str)), None)
        if wrong is not None:
            raise DataError(
                f"{group.strip('/')}/{name} mixes text with {type(wrong).__name__}, which a file cannot hold. "
                "Give ids as text or as whole numbers throughout."
            )
    elif values.dtype.kind not in "biuf":
        raise DataError(f"{group.strip('/')}/{name} is of type {values.dtype}, expected numbers, true/false or text.")
    return xr.Variable(variable.dims, values, attrs=variable.attrs)


def _write(groups: Groups, attrs: Attributes, path: Path, format_: Format) -> None:
    tree = xr.DataTree.from_dict(dict(groups))
    tree.attrs = attrs
    encoding = {group: {str(n): _encoding(v, format_) for n, v in ds.variables.items()} for group, ds in groups.items()}
    if format_ == ".nc":
        tree.to_netcdf(path, mode="w", engine="netcdf4", encoding=encoding)
    else:
        # Format 2: format 3 has no settled form for text and warns about it and about consolidated metadata.
        tree.to_zarr(path, mode="w", zarr_format=2, consolidated=True, encoding=encoding)


def _encoding(variable: xr.Variable, format_: Format) -> dict[str, Any]:
    encoding: dict[str, Any] = {"_FillValue": None} if variable.dtype.kind == "f" else {}
    if variable.ndim == 0:
        return encoding
    if format_ == ".zarr":
        one_chain = variable.nbytes > ONE_CHUNK_BYTES and variable.dims[0] == names.CHAIN
        return encoding | {
            "chunks": tuple(max(1, n) for n in ((1, *variable.shape[1:]) if one_chain else variable.shape))
        }
    if variable.dtype.kind == "O":
        return encoding  # netCDF filters no text; the checksum covers it
    return encoding | {"zlib": True, "complevel": COMPRESSION_LEVEL, "shuffle": True, "fletcher32": True}


def _read(path: Path, format_: Format, *, hash_only: bool) -> tuple[Attributes, Digests, Groups]:
    """Return the root's attributes, the digests and, unless only those are wanted, the groups, in memory."""
    engine = "netcdf4" if format_ == ".nc" else "zarr"
    groups: Groups = {}
    with xr.open_datatree(path, engine=engine, cache=False) as tree:
        attrs = {str(name): value for name, value in tree.attrs.items()}
        opened = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
        if not hash_only:
            opened = groups = {group: _loaded(dataset, root=group == "/") for group, dataset in opened.items()}
        covered = {name: value for name, value in attrs.items() if name not in (ATTR_SHA256, ATTR_PARTS)}
        parts = digests(opened, covered)
    return attrs, parts, groups


def _loaded(dataset: xr.Dataset, *, root: bool) -> xr.Dataset:
    loaded = dataset.load().drop_encoding()
    return loaded.drop_attrs(deep=False) if root else loaded


def _flush(path: Path) -> None:
    """Push a file, or a folder with all it holds, to the disk."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        _sync(each)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_name(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(temporary, target)
    else:
        # A folder cannot be replaced in one step: the old one stands aside for a moment and comes back on failure.
        aside = temporary.with_name(f"{temporary.name}{ASIDE}")
        os.replace(target, aside)
        try:
            os.replace(temporary, target)
        except OSError:
            os.replace(aside, target)
            raise
        _remove(aside)
    _sync(target.parent)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there. zarr's other writers may still be at work when one has failed."""
    if not path.exists():
        return
    gone, deadline = 0, time.monotonic() + REMOVAL_SECONDS
    while gone < SETTLED and time.monotonic() < deadline:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        time.sleep(REMOVAL_PAUSE)
        gone = 0 if path.exists() else gone + 1


def _words(problem: BaseException) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text[:200].rstrip(".")

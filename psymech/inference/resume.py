"""Fits that survive their process: sampling into a store, resume() and salvage()."""

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from psymech import names
from psymech.arguments import instance
from psymech.data.sessions import SessionData
from psymech.design import Design, make_design
from psymech.errors import DataError, SpecError
from psymech.graph.build import BuiltModel
from psymech.inference import storage
from psymech.inference.chains import RunOptions, together
from psymech.inference.checks import check_sampling
from psymech.inference.drawing import SamplingWarning, draw_tree, tree_of
from psymech.inference.interruption import interrupted
from psymech.inference.run import Sampler
from psymech.inference.run_folder import LOCK_NAME, is_run
from psymech.inference.stages import Stages
from psymech.inference.store import Store, create_store, open_store, other_versions
from psymech.inference.store_lock import locked
from psymech.inference.tree import tree_coords, variable_dims
from psymech.spec.model import ModelSpec

SPARE: Final = 1.1  # of the bytes of the draws: headers, statistics, the data
STORED: Final[Sampler] = "nutpie"  # the sampler whose chains are kept


def sample_into(
    path: str | Path,
    built: BuiltModel,
    sampler: Sampler,
    options: RunOptions,
    stages: Stages,
    attrs: Mapping[str, str | int | float],
) -> xr.DataTree:
    """Sample a model chain by chain into a folder, which the finished fit then replaces.

    Raises
    ------
    SpecError
        Another sampler than nutpie, or a model that the folder cannot keep.
    DataError
        The path exists, the disk has too little room, or a block cannot be written.
    """
    instance(path, (str, PathLike), "store", "a file name")
    path = Path(path)
    storage.file_format(path)
    if sampler != STORED:
        raise SpecError(f"store= keeps the chains of sampler={STORED!r}, found {sampler!r}. Leave one of them out.")
    _check_free(path)
    check_room(path, needed_bytes(built.design, options))
    target = path.resolve()
    try:
        target.mkdir(mode=0o700)
    except OSError as problem:
        raise DataError(f"Cannot make the folder {path.name!r}: {problem.strerror or problem}.") from problem
    with _emptied_on_failure(target), locked(target):
        store = create_store(target, built, options, attrs)
        return _go_on(path, store, built, options, stages, attrs)


def resume(
    path: str | Path,
    *,
    spec: ModelSpec | None = None,
    data: SessionData | None = None,
    cores: int | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Go on with a fit that was stopped, begun with ``psymech.fit(..., store=path)`` or ``psymech.sample``.

    Chains that had come to their end are read; the others are run from their own seeds. Because a chain depends on
    nothing but model, data, seed and its number, the posterior is the same, to the last bit, as that of a run that was
    not stopped, on the same machine. The finished fit then stands at `path`, as :func:`psymech.save` writes it.

    Parameters
    ----------
    path
        As given to ``store=``. A fit that had come to its end is loaded.
    spec, data
        Where given, they are compared with those that began the run.
    cores
        Chains that run at once; by default as many as in the stopped run.
    progressbar
        Show the stages and the progress.

    Returns
    -------
    DataTree

    Raises
    ------
    DataError
        There is no such run, another process is at work on it, a block is damaged (the message names it), the disk is
        full, `data` are others, or versions of libraries are others than those that began the run.
    SpecError
        `spec` is another.

    Examples
    --------
    >>> import psymech as psm
    >>> tree = psm.resume("fit.zarr")  # doctest: +SKIP
    """
    path = Path(path)
    stages = Stages(show=progressbar)
    target = path.resolve()
    _bring_back(target)
    if not is_run(target):
        tree = storage.load(path)
        _check_same(path, tree.attrs[names.ATTR_SPEC], None, spec, data)
        return tree
    with locked(target):
        store = open_store(target, writing=True)
        built, options, attrs = store.model(progressbar=progressbar, cores=cores)
        _check_same(path, built.spec.to_json(), built.design, spec, data)
        others = other_versions(store.versions())
        if others:
            raise DataError(
                f"{path.name!r} was begun with other versions ({'; '.join(others)}), so its chains would not be of one "
                "run. Install those versions, or read what is there with psymech.salvage."
            )
        _clear(target)
        finished = sorted(store.finished())
        stages.tell(f"{len(finished)} of {options.chains} chains are there already")
        tree = _go_on(path, store, built, options, stages, attrs)
    if not interrupted(tree):
        report = check_sampling(tree)
        stages.tell(f"sampling: {report.verdict}")
        if report.verdict != "ok":
            warnings.warn(str(report), SamplingWarning, stacklevel=2)
    return tree


def salvage(path: str | Path) -> xr.DataTree:
    """Read what a stopped run has drawn, without going on with it.

    Of chains of different length the chains and the length are taken that keep most draws. The tree says what it is: it
    has the attribute ``psymech_interrupted``, and :func:`psymech.check_sampling` calls it not assessable.

    Parameters
    ----------
    path
        As given to ``store=``.

    Returns
    -------
    DataTree

    Raises
    ------
    DataError
        There is no such run, nothing was drawn yet, or a block is damaged (the message names it).

    Examples
    --------
    >>> import psymech as psm
    >>> tree = psm.salvage("fit.zarr")  # doctest: +SKIP
    """
    path = Path(path)
    target = path.resolve()
    if not is_run(target):
        raise DataError(
            f"{path.name!r} is not a run that was stopped. "
            f"{'Read it with psymech.load.' if target.exists() else 'There is nothing of that name.'}"
        )
    store = open_store(target)
    built, options, attrs = store.model(progressbar=False, cores=None)
    chains = store.so_far()
    if not any(chain.n for chain in chains.values()):
        raise DataError(f"{path.name!r} holds no draws yet. Go on with psymech.resume({path.name!r}).")
    drawn = together([chains.get(k) for k in range(options.chains)])
    if built.engine == "collapsed":
        from psymech.graph.crossing import make_crossing
        from psymech.inference.collapsed import recovered

        drawn = recovered(built.design, built.priors, make_crossing(built.design, built.priors), options, drawn)
    tree = tree_of(built, STORED, options, drawn, attrs)
    warnings.warn(f"{interrupted(tree)} Go on with psymech.resume({path.name!r}).", SamplingWarning, stacklevel=2)
    return tree


def needed_bytes(design: Design, options: RunOptions) -> int:
    """Bytes that a run and its finished fit take on the disk together, as far as sizes tell."""
    sizes = {name: values.size for name, values in tree_coords(design).items()}
    left_out = {names.effect(level) for level in names.LEVELS if level not in options.effects}
    per_draw = sum(
        int(np.prod([sizes[dim] for dim in dims]))
        for name, dims in variable_dims(design).items()
        if name not in left_out
    )
    draws = 8 * options.draws * options.chains * (per_draw + 8)
    rows = 8 * design.n_obs * (len(design.terms) + 8 + sum(level.Z.shape[1] + 1 for level in design.levels))
    return int(SPARE * 2 * (draws + rows))


def check_room(path: Path, needed: int) -> None:
    """Raise DataError where a disk has fewer bytes left than are needed."""
    parent = path.resolve().parent
    if not parent.is_dir():
        raise DataError(f"The folder {str(path.parent)!r} does not exist. Make it first, or name another.")
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DataError(
            f"The run needs about {needed / 2**20:,.0f} MiB for {path.name!r}, but {free / 2**20:,.0f} MiB are free. "
            "Make room, take fewer draws, or leave out levels with effects=[...]."
        )


def _go_on(
    path: Path,
    store: Store,
    built: BuiltModel,
    options: RunOptions,
    stages: Stages,
    attrs: Mapping[str, Any],
) -> xr.DataTree:
    tree = draw_tree(built, STORED, options, stages, keeper=store, attrs=attrs)
    if interrupted(tree):
        return tree
    storage.write(tree, path)
    stages.tell(f"saved as {path.name}")
    return tree


def _check_free(path: Path) -> None:
    if is_run(path.resolve()):
        raise DataError(
            f"{path.name!r} holds a run that has not come to its end. Go on with psymech.resume({path.name!r}), or "
            "delete it."
        )
    if path.exists():
        raise DataError(
            f"{path.name!r} exists already. Read it with psymech.load, delete it, or name another with store=."
        )


def _check_same(
    path: Path, began: str, design: Design | None, spec: ModelSpec | None, data: SessionData | None
) -> None:
    if spec is not None and design is not None and data is not None:
        from psymech.columns import settle_levels

        spec = settle_levels(spec, data)
    if spec is not None and spec.to_json() != began:
        raise SpecError(f"{path.name!r} was begun with another model (spec). Give that one, or leave spec= out.")
    if data is None or design is None:
        return
    if spec is None:
        from psymech.spec.model import from_json

        spec = from_json(began)
    differing = _differing(make_design(spec, data), design)
    if differing:
        raise DataError(
            f"{path.name!r} was begun with other data: {', '.join(differing)} differ. Give those data, or leave data= "
            "out."
        )


def _differing(new: Design, old: Design) -> list[str]:
    """Say in words which parts of two designs differ."""
    parts = {
        "outcomes": (new.y, old.y),
        "predictors": (new.X, old.X),
        "session numbers": (new.session, old.session),
        "times": (new.time, old.time),
        **{f"ids of {level}s": (new.unit_ids.get(level, ()), ids) for level, ids in old.unit_ids.items()},
    }
    for level in old.levels:
        mine = new.level(level.level)
        parts[f"which {level.level} a row belongs to"] = (() if mine is None else mine.code, level.code)
    return [what for what, (a, b) in parts.items() if not np.array_equal(np.asarray(a), np.asarray(b))]


@contextmanager
def _emptied_on_failure(folder: Path) -> Iterator[None]:
    """Remove a new folder in which nothing but the lock was written."""
    try:
        yield
    finally:
        if folder.is_dir() and not any(each.name != LOCK_NAME for each in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


def _leavings(target: Path) -> list[Path]:
    pattern = re.compile(re.escape(f".{target.name}.") + r"\d+-[0-9a-f]{8}(\.old)?")
    return [each for each in target.parent.iterdir() if pattern.fullmatch(each.name)] if target.parent.is_dir() else []


def _bring_back(target: Path) -> None:
    """A run's folder that was standing aside for its finished fit when the process died takes its place again."""
    if target.exists():
        return
    for each in _leavings(target):
        if each.name.endswith(storage.ASIDE) and is_run(each):
            os.replace(each, target)
            return


def _clear(target: Path) -> None:
    """Remove what a process that died while it saved has left beside the folder."""
    for each in _leavings(target):
        if not each.name.endswith(storage.ASIDE):
            shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)

"""A run on disk while it goes on: what is sampled, and the chains as they come, each block whole or absent.

A run's folder holds ``run.json`` (options and versions), ``model.npz`` (specification, design, priors), blocks of draws
``chain-0-0000.npz``, a ``journal`` and a lock. A block is written under another name, flushed, renamed, and only then
noted in the journal with its SHA-256; a block that the journal does not know does not count.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from psymech import __version__
from psymech.errors import DataError, SpecError
from psymech.graph.build import BuiltModel
from psymech.inference.chains import ChainDraws, RunOptions
from psymech.inference.run_folder import JOURNAL_NAME, MODEL_NAME
from psymech.inference.store_codec import decode, encode, npz, read_npz
from psymech.inference.versions import library_versions

RUN_NAME: Final = "run.json"
FORMAT: Final = 1
COMMIT_SECONDS: Final = 30.0  # between looks at chains that are still running
LINE_DIGITS: Final = 16
REPRODUCING: Final = ("psymech", "python", "nutpie", "numpy", "numba", "pymc", "pytensor")  # versions the draws rest on


@dataclass(frozen=True, slots=True)
class Block:
    """A line of the journal: a file, its SHA-256, and which draws of which chain it holds."""

    block: str
    sha256: str
    chain: int = -1
    run: int = 0
    first: int = 0
    n: int = 0
    last: bool = False


@dataclass(slots=True)
class Store:
    """Keeps chains in a run's folder.

    Attributes
    ----------
    blocks : what the journal holds; run : how often the run has been started, from 0.
    """

    folder: Path
    blocks: list[Block]
    run: int
    commit_seconds: float = COMMIT_SECONDS
    _kept: dict[int, int] = field(default_factory=dict)
    _looked: float = field(default_factory=time.monotonic)

    def finished(self) -> Mapping[int, ChainDraws]:
        """Return the chains that came to their end."""
        ends = [(block.chain, block.run) for block in self.blocks if block.last]
        return {chain: self._chain(chain, run) for chain, run in ends}

    def so_far(self) -> Mapping[int, ChainDraws]:
        """Return the most that is there of each chain."""
        most: dict[int, tuple[int, int]] = {}
        for block in self.blocks:
            if block.chain >= 0:
                most[block.chain] = max(most.get(block.chain, (0, 0)), (block.first + block.n, block.run))
        return {chain: self._chain(chain, run) for chain, (_, run) in most.items()}

    def due(self) -> bool:
        """Return whether it is time to keep running chains."""
        return time.monotonic() - self._looked >= self.commit_seconds

    def keep(self, chain: int, draws: ChainDraws, *, last: bool) -> None:
        """Write the draws that are not there yet.

        Raises
        ------
        DataError
            They could not be written whole; what was written before stays.
        """
        self._looked = time.monotonic()
        first = self._kept.get(chain, 0)
        if draws.n == first and not last:
            return
        part = draws.part(first, draws.n)
        arrays = {f"value {name}": array for name, array in part.values.items()}
        arrays |= {f"stat {name}": array for name, array in part.stats.items()}
        number = sum(block.chain == chain for block in self.blocks)
        self._commit(f"chain-{chain}-{number:04d}.npz", npz(arrays), chain=chain, first=first, n=part.n, last=last)
        self._kept[chain] = draws.n

    def model(self, *, progressbar: bool, cores: int | None) -> tuple[BuiltModel, RunOptions, dict[str, Any]]:
        """Return what is sampled, how, and the attributes that the tree is to carry."""
        run = json.loads(self._read(self._named(RUN_NAME)))
        if run["format"] != FORMAT:
            raise DataError(
                f"{self.folder.name!r} was begun by psymech {run['psymech_version']}, whose folders have format "
                f"{run['format']}; this is {__version__}, which reads format {FORMAT}. Go on with that version."
            )
        spec, design, priors = decode(self._read(self._named(MODEL_NAME)))
        options = run["options"] | {"progressbar": progressbar, "effects": tuple(run["options"]["effects"])}
        if cores is not None:
            options["cores"] = cores
        built = BuiltModel(spec=spec, design=design, priors=priors, engine=run["engine"], reason=run["reason"])
        if variables(built) != run["variables"]:
            raise SpecError(
                f"The model of {self.folder.name!r} was changed by hand before it was sampled (built.model), which the "
                "folder cannot keep. Sample it again without store=."
            )
        return built, RunOptions(**options), run["attrs"]

    def versions(self) -> dict[str, str]:
        """Return the versions that began the run."""
        return json.loads(self._read(self._named(RUN_NAME)))["versions"]

    def _chain(self, chain: int, run: int) -> ChainDraws:
        import numpy as np

        parts: list[dict[str, Any]] = []
        have = 0
        for block in self.blocks:
            if block.chain == chain and block.run == run:
                if block.first != have:
                    raise DataError(f"{self.folder.name!r} lacks draws {have} to {block.first} of chain {chain}.")
                parts.append(read_npz(self._read(block)))
                have += block.n
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        values = {name.removeprefix("value "): a for name, a in whole.items() if name.startswith("value ")}
        return ChainDraws(
            values, {name.removeprefix("stat "): a for name, a in whole.items() if name.startswith("stat ")}
        )

    def _named(self, name: str) -> Block:
        found = next((block for block in self.blocks if block.block == name), None)
        if found is None:
            raise DataError(f"{self.folder.name!r} was stopped before it had begun: {name!r} is missing. Delete it.")
        return found

    def _read(self, block: Block) -> bytes:
        remedy = "Take a copy of the folder that is whole, or delete it and fit again."
        damaged = f"{self.folder.name!r} is damaged: the block {block.block!r}"
        try:
            content = (self.folder / block.block).read_bytes()
        except FileNotFoundError:
            raise DataError(
                f"{self.folder.name!r} is damaged: the block {block.block!r} is missing. {remedy}"
            ) from None
        except OSError as problem:
            raise DataError(
                f"The block {block.block!r} of {self.folder.name!r} cannot be read: {problem.strerror}."
            ) from problem
        if hashlib.sha256(content).hexdigest() != block.sha256:
            raise DataError(f"{damaged} ({len(content)} bytes) is not what was written (sha256 differs). {remedy}")
        return content

    def _commit(
        self, name: str, content: bytes, *, chain: int = -1, first: int = 0, n: int = 0, last: bool = False
    ) -> None:
        block = Block(name, hashlib.sha256(content).hexdigest(), chain, self.run, first, n, last)
        temporary = self.folder / f".{name}.part"
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
            _sync_folder(self.folder)
            _append(self.folder / JOURNAL_NAME, block)
        except OSError as problem:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise DataError(
                f"Could not write the block {name!r} of {self.folder.name!r}: {problem.strerror or problem}. Is the "
                "disk full, or may the folder not be written to? What was written before is kept: make room, and go on "
                f"with psymech.resume({self.folder.name!r})."
            ) from problem
        self.blocks.append(block)


def create_store(folder: Path, built: BuiltModel, options: RunOptions, attrs: Mapping[str, Any]) -> Store:
    """Write what is to be sampled into a folder that exists and is empty but for its lock."""
    store = Store(folder, [], 0)
    content = encode((built.spec, built.design, built.priors))
    told = asdict(options)
    del told["progressbar"]
    run = {
        "format": FORMAT,
        "psymech_version": __version__,
        "versions": library_versions(),
        "engine": built.engine,
        "reason": built.reason,
        "options": told,
        "attrs": dict(attrs),
        "variables": variables(built),
    }
    store._commit(MODEL_NAME, content)
    store._commit(RUN_NAME, json.dumps(run).encode())
    return store


def variables(built: BuiltModel) -> list[str]:
    """Names of the variables of an explicit graph, which may be extended by hand; none of a collapsed one."""
    if built.engine == "collapsed":
        return []
    model = built.model
    return sorted(variable.name or "" for variable in [*model.basic_RVs, *model.potentials, *model.deterministics])


def open_store(folder: Path, *, writing: bool = False) -> Store:
    """Read the journal of a run's folder; cut off a torn last line where it is to be written on.

    Raises
    ------
    DataError
        A line of the journal is not what was written. A last line that is torn is left out: its block does not count.
    """
    try:
        content = (folder / JOURNAL_NAME).read_bytes()
    except OSError:
        raise DataError(
            f"{folder.name!r} was stopped before it had begun: it has no {JOURNAL_NAME!r}. Delete it and fit again."
        ) from None
    *lines, rest = content.split(b"\n")
    blocks = []
    for number, line in enumerate(lines, start=1):
        digest, _, text = line.partition(b" ")
        if hashlib.sha256(text).hexdigest()[:LINE_DIGITS].encode() != digest:
            raise DataError(
                f"{folder.name!r} is damaged: line {number} of its {JOURNAL_NAME!r} is not what was written. Take a "
                "copy of the folder that is whole, or delete it and fit again."
            )
        blocks.append(Block(**json.loads(text)))
    if rest and writing:
        with (folder / JOURNAL_NAME).open("r+b") as file:
            file.truncate(len(content) - len(rest))
    return Store(folder, blocks, 1 + max((block.run for block in blocks), default=0))


def check_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Raise SpecError where a run was begun with other options than those given."""
    _, began, _ = open_store(folder).model(progressbar=False, cores=None)
    for name in ("draws", "tune", "chains", "seed", "target_accept", "max_treedepth"):
        if name in options and options[name] != getattr(began, name):
            raise SpecError(
                f"{folder.name!r} holds a run that was begun with {name}={getattr(began, name)}, now {options[name]} "
                "is asked for. Give the same, or begin anew."
            )


def other_versions(began: Mapping[str, str]) -> list[str]:
    """Return, in words, which versions are others than those that began a run."""
    now = library_versions()
    return [
        f"{name} {began.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in REPRODUCING
        if began.get(name) != now.get(name)
    ]


def _append(journal: Path, block: Block) -> None:
    text = json.dumps(asdict(block)).encode()
    line = hashlib.sha256(text).hexdigest()[:LINE_DIGITS].encode() + b" " + text + b"\n"
    before = journal.stat().st_size if journal.exists() else 0
    try:
        with journal.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError), journal.open("r+b") as file:
            file.truncate(before)
        raise


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

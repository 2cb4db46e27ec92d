"""Runs that are killed, interrupted, cut short by the disk or damaged: what is kept, and what is refused."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.inference import chains
from psymech.inference import resume as resuming
from psymech.inference import store as storing
from psymech.inference.chains import ChainDraws, largest_block
from psymech.inference.store import check_options, open_store
from psymech.inference.store_codec import decode, encode
from psymech.inference.store_lock import locked
from tests.inference.stored_run import CHAINS, built, sample

DRAWS = 150
PATIENCE = 300.0  # seconds: a process that has not come so far by then hangs
ROOT = Path(__file__).parents[2]


class Stop(Exception):
    """In place of a process that dies: nothing of psymech catches it."""


@pytest.fixture(scope="module")
def model() -> psm.BuiltModel:
    return built("collapsed")


@pytest.fixture(scope="module")
def whole(model: psm.BuiltModel) -> xr.DataTree:
    return sample(model, draws=DRAWS)


@pytest.fixture(scope="module")
def stopped_once(model: psm.BuiltModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died when its first chain had been kept."""
    path = tmp_path_factory.mktemp("stopped") / "fit.nc"
    with dying_at(1), pytest.raises(Stop):
        sample(model, draws=DRAWS, store=path)
    return path


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_once, tmp_path / "fit.nc"))


@contextmanager
def dying_at(commit: int) -> Iterator[None]:
    keep, seen = storing.Store.keep, []

    def dies(self: storing.Store, chain: int, draws: ChainDraws, *, last: bool) -> None:
        keep(self, chain, draws, last=last)
        seen.append(chain)
        if len(seen) == commit:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing.Store, "keep", dies)
        yield


def same_draws(a: xr.DataTree, b: xr.DataTree) -> bool:
    return a["posterior"].to_dataset().identical(b["posterior"].to_dataset()) and (
        a["sample_stats"].to_dataset().identical(b["sample_stats"].to_dataset())
    )


# -- whole runs


def test_a_store_changes_no_draw_and_becomes_the_saved_fit(model, whole, tmp_path):
    path = tmp_path / "fit.zarr"
    tree = sample(model, draws=DRAWS, store=path)
    assert same_draws(tree, whole)
    assert psm.load(path).identical(tree)
    assert [each.name for each in tmp_path.iterdir()] == ["fit.zarr"]
    assert psm.resume(path, progressbar=False).identical(tree)


def test_a_chain_depends_on_its_number_only(model, whole):
    two = sample(model, draws=DRAWS, n_chains=2)
    assert np.array_equal(two["posterior"]["sigma"], whole["posterior"]["sigma"][:2])
    assert not np.array_equal(whole["posterior"]["sigma"][0], whole["posterior"]["sigma"][1])


# -- stopped runs


def test_resume_runs_the_missing_chains_and_gives_the_same_draws(stopped, whole, monkeypatch):
    started = []
    start = chains._start
    monkeypatch.setattr(chains, "_start", lambda *args: started.append(args[2]) or start(*args))
    tree = psm.resume(stopped, progressbar=False)
    assert started == [1, 2]
    assert same_draws(tree, whole)
    assert psm.load(stopped).identical(tree)


def test_salvage_reads_the_finished_chain_and_says_what_it_is(stopped, whole):
    with pytest.warns(psm.SamplingWarning, match=r"150, 0, 0 of 150 draws.*of one chain are kept.*psymech.resume"):
        tree = psm.salvage(stopped)
    assert np.array_equal(tree["posterior"]["sigma"], whole["posterior"]["sigma"][:1])
    assert psm.check_sampling(tree).verdict == "not assessable"
    assert psm.resume(stopped, progressbar=False).posterior.sizes["chain"] == CHAINS


def test_a_running_chain_is_kept_in_blocks_that_make_the_whole(model, tmp_path, monkeypatch):
    monkeypatch.setattr(storing.Store.__init__, "__defaults__", (0.0, *storing.Store.__init__.__defaults__[1:]))
    path = tmp_path / "fit.zarr"
    with dying_at(3), pytest.raises(Stop):
        sample(model, draws=20_000, store=path)
    store = open_store(path)
    blocks = [block for block in store.blocks if block.chain == 0]
    assert len(blocks) >= 2 and not blocks[0].last
    with pytest.warns(psm.SamplingWarning):
        partial = psm.salvage(path)
    n = partial["posterior"].sizes["draw"]
    assert 0 < n < 20_000
    full = sample(model, draws=n, n_chains=1)
    assert np.array_equal(partial["posterior"]["sigma"], full["posterior"]["sigma"])


def test_a_folder_that_stood_aside_for_its_fit_comes_back(stopped, whole):
    os.replace(stopped, stopped.with_name(".fit.nc.123-0123abcd.old"))
    stopped.with_name(".fit.nc.123-0123abcd").write_bytes(b"half a fit")
    assert same_draws(psm.resume(stopped, progressbar=False), whole)
    assert [each.name for each in stopped.parent.iterdir()] == ["fit.nc"]


def test_a_run_on_its_way_is_neither_loaded_nor_replaced(stopped, whole, model):
    with pytest.raises(psm.DataError, match=r"has not come to its end.*psymech\.resume\('fit.nc'\).*psymech\.salvage"):
        psm.load(stopped)
    for call in (lambda: psm.save(whole, stopped), lambda: sample(model, draws=10, store=stopped)):
        with pytest.raises(psm.DataError, match=r"has not come to its end.*psymech\.resume"):
            call()


# -- what resume refuses


def test_another_model_is_refused(stopped):
    with pytest.raises(psm.SpecError, match="begun with another model"):
        psm.resume(stopped, spec=psm.growth("phq9", shape="log"), progressbar=False)


def test_other_data_are_refused_and_named(stopped):
    data = psm.load_example("process_study")
    frame = data.sessions.copy()
    frame.loc[3, "phq9"] += 1
    other = psm.SessionData.from_frame(frame)
    with warnings.catch_warnings(), pytest.raises(psm.DataError, match=r"other data: outcomes differ"):
        warnings.simplefilter("ignore", psm.DesignWarning)
        psm.resume(stopped, data=other, progressbar=False)
    frame = data.sessions[data.sessions["session"] > 1]
    with pytest.raises(psm.DataError, match=r"outcomes, predictors, session numbers"):
        psm.resume(stopped, data=psm.SessionData.from_frame(frame), progressbar=False)


def test_the_same_model_and_data_are_taken(stopped, whole):
    spec, data = psm.growth("phq9"), psm.load_example("process_study")
    assert same_draws(psm.resume(stopped, spec=spec, data=data, progressbar=False), whole)


def test_other_versions_are_refused_and_named(stopped, monkeypatch):
    now = storing.library_versions() | {"nutpie": "9.9", "scipy": "9.9"}  # scipy plays no part in the draws
    monkeypatch.setattr(storing, "library_versions", lambda: now)
    with pytest.raises(psm.DataError, match=r"other versions \(nutpie [\d.]+ then, 9.9 now\)"):
        psm.resume(stopped, progressbar=False)


def test_an_explicit_graph_changed_by_hand_is_refused(tmp_path):
    import pymc as pm

    model = built("explicit")
    with model.model:
        pm.Potential("extra", -(model.model["sigma"] ** 2))
    with dying_at_creation(), pytest.raises(Stop):
        sample(model, draws=10, store=tmp_path / "fit.nc")
    with pytest.raises(psm.SpecError, match="changed by hand"):
        psm.resume(tmp_path / "fit.nc", progressbar=False)


@contextmanager
def dying_at_creation() -> Iterator[None]:
    def dies(*args, **kwargs):
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming, "_go_on", dies)
        yield


# -- damage


def test_every_flipped_byte_is_found(stopped):
    rng = np.random.default_rng(8)
    files = [each for each in sorted(stopped.iterdir()) if each.name != "lock.json"]
    assert len(files) == 4
    for k in range(200):
        file = files[k % len(files)]
        content = bytearray(file.read_bytes())
        at = int(rng.integers(len(content) - (file.name == "journal")))  # its last byte ends the last line
        content[at] ^= 1 << int(rng.integers(8))
        kept = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(psm.DataError, match="damaged") as told:
            store = open_store(stopped)
            store.model(progressbar=False, cores=None)
            store.finished()
        assert file.name in str(told.value)
        file.write_bytes(kept)


@pytest.mark.parametrize("name", ["chain-0-0000.npz", "model.npz", "run.json"])
def test_a_block_that_is_cut_off_or_absent_is_named(stopped, name):
    (stopped / name).write_bytes((stopped / name).read_bytes()[:-1])
    with pytest.raises(psm.DataError, match=f"the block '{name}'.*sha256"):
        psm.resume(stopped, progressbar=False)
    (stopped / name).unlink()
    with pytest.raises(psm.DataError, match=f"the block '{name}' is missing"):
        psm.resume(stopped, progressbar=False)


def test_a_torn_last_line_does_not_count(stopped, whole):
    with (stopped / "journal").open("ab") as file:
        file.write(b'0123456789abcdef {"block": "chain-1-00')
    assert same_draws(psm.resume(stopped, progressbar=False), whole)


def test_a_folder_without_a_journal_never_began(stopped):
    (stopped / "journal").unlink()
    (stopped / "lock.json").write_text("{")
    with pytest.raises(psm.DataError, match="stopped before it had begun"):
        psm.resume(stopped, progressbar=False)


def test_no_draws_yet_are_no_fit(model, tmp_path):
    with dying_at_creation(), pytest.raises(Stop):
        sample(model, draws=10, store=tmp_path / "fit.nc")
    with pytest.raises(psm.DataError, match="holds no draws yet"):
        psm.salvage(tmp_path / "fit.nc")
    with pytest.raises(psm.DataError, match="There is nothing of that name"):
        psm.salvage(tmp_path / "none.nc")


# -- room


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(model, tmp_path, monkeypatch):
    monkeypatch.setattr(resuming.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(psm.DataError, match=r"needs about \d+ MiB for 'fit.nc', but 1 MiB are free"):
        sample(model, draws=20_000, store=tmp_path / "fit.nc")
    assert not list(tmp_path.iterdir())


def test_the_room_asked_for_is_what_a_fit_takes(model, tmp_path):
    options = SimpleNamespace(draws=400, chains=CHAINS, effects=("patient", "therapist"))
    psm.save(psm.sample(model, draws=400, tune=200, chains=CHAINS, seed=1, progressbar=False), tmp_path / "fit.nc")
    taken = (tmp_path / "fit.nc").stat().st_size
    needed = resuming.needed_bytes(model.design, options)  # pyright: ignore[reportArgumentType]
    assert taken < needed < 3 * taken  # a run keeps its draws twice while it saves the fit


def test_a_full_disk_says_so_and_the_run_goes_on_when_there_is_room(model, whole, tmp_path):
    path, before = tmp_path / "fit.nc", resource.getrlimit(resource.RLIMIT_FSIZE)
    room = len(encode((model.spec, model.design, model.priors)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # blocks of 3000 draws are larger
    try:
        with pytest.raises(psm.DataError, match=r"'chain-0-0000.npz'.*Is the disk full.*psymech\.resume\('fit.nc'\)"):
            sample(model, draws=3000, store=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    tree = psm.resume(path, progressbar=False)
    assert dict(tree["posterior"].sizes)["draw"] == 3000
    assert np.array_equal(tree["posterior"]["sigma"][:, :DRAWS], whole["posterior"]["sigma"])


def test_a_folder_that_cannot_be_made_is_refused(model, tmp_path, monkeypatch):
    def refuses(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuses)
    with pytest.raises(psm.DataError, match=r"Cannot make the folder 'fit\.nc': Permission denied"):
        sample(model, draws=10, store=tmp_path / "fit.nc")


def test_what_stands_there_is_not_replaced(model, tmp_path):
    (tmp_path / "fit.nc").write_text("mine")
    with pytest.raises(psm.DataError, match="exists already"):
        sample(model, draws=10, store=tmp_path / "fit.nc")
    assert (tmp_path / "fit.nc").read_text() == "mine"
    with pytest.raises(psm.DataError, match=r"ends in \.nc or \.zarr"):
        sample(model, draws=10, store=tmp_path / "fit.psm")
    with pytest.raises(psm.DataError, match="does not exist"):
        sample(model, draws=10, store=tmp_path / "none" / "fit.nc")
    with pytest.raises(psm.SpecError, match="store= keeps the chains of sampler='nutpie'"):
        psm.sample(model, draws=10, sampler="pymc", store=tmp_path / "other.nc", progressbar=False)


# -- the lock


def test_a_living_process_keeps_others_out(stopped):
    start = Path("/proc/self/stat")
    held = start.read_text().rsplit(")", 1)[1].split()[19] if start.exists() else None
    lock = {"pid": os.getpid(), "host": socket.gethostname(), "start": held, "since": 0.0}
    (stopped / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(psm.DataError, match=f"in use by process {os.getpid()}"):
        psm.resume(stopped, progressbar=False)


def test_a_process_of_another_machine_keeps_others_out(stopped):
    lock = {"pid": 1, "host": "elsewhere", "start": None, "since": 0.0}
    (stopped / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(psm.DataError, match=r"on 'elsewhere'.*delete 'lock.json'"):
        psm.resume(stopped, progressbar=False)


def test_the_lock_of_a_dead_process_is_taken_over(stopped, whole):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = {"pid": dead.pid, "host": socket.gethostname(), "start": "1", "since": 0.0}
    (stopped / "lock.json").write_text(json.dumps(lock))
    assert same_draws(psm.resume(stopped, progressbar=False), whole)


def test_a_lock_half_written_is_not_taken_for_a_dead_one(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    writing, write, end = threading.Event(), threading.Event(), threading.Event()
    dump = json.dump

    def slowly(own, file):
        writing.set()
        assert write.wait(PATIENCE)
        dump(own, file)

    def hold():
        with locked(tmp_path):
            assert end.wait(PATIENCE)

    monkeypatch.setattr(json, "dump", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hold)
        assert writing.wait(PATIENCE)
        second = pool.submit(hold)
        time.sleep(0.05)  # time enough for the second to read what there is of the lock
        write.set()
        with pytest.raises(psm.DataError, match=f"in use by process {os.getpid()}"):
            second.result(PATIENCE)
        assert (tmp_path / "lock.json").exists()
        end.set()
        first.result(PATIENCE)
    assert not (tmp_path / "lock.json").exists()


# -- the codec


@dataclass(frozen=True)
class Stranger:
    value: int


def test_a_design_comes_back_as_it_was(model):
    content = encode((model.spec, model.design, model.priors))
    spec, design, priors = decode(content)
    assert spec == model.spec and design.report == model.design.report
    assert np.array_equal(design.X, model.design.X) and design.X.dtype == model.design.X.dtype
    assert np.array_equal(priors.center, model.priors.center)
    assert encode((spec, design, priors)) == content


def test_only_named_classes_are_written_or_made(model):
    with pytest.raises(psm.SpecError, match="cannot keep a Stranger"):
        encode(Stranger(1))
    content = encode(model.design.term_specs).replace(b'"Term"', b'"Team"')
    with pytest.raises(Exception, match=r"Team|CRC"):
        decode(content)


def test_every_field_of_a_built_model_is_kept(model):
    assert {field.name for field in fields(model)} == {"spec", "design", "priors", "engine", "reason"}


# -- Ctrl-C


def test_the_block_of_chains_that_keeps_most_draws():
    assert largest_block((1000, 1000, 900, 3)) == ((0, 1, 2), 900)
    assert largest_block((0, 50, 0)) == ((1,), 50)
    assert largest_block((0, 0)) == ((), 0)


def test_an_interrupted_fit_is_never_called_good_and_is_withheld(whole):
    tree = whole.copy()
    tree.attrs = whole.attrs | {
        "psymech_interrupted": '{"asked": 900, "made": [150, 150, 150], "kept_chains": [0, 1, 2]}'
    }
    found = psm.check_sampling(tree)
    assert found.verdict != "ok"
    assert "interrupted: its chains made 150, 150, 150 of 900 draws" in str(found)


def run_process(engine: str, path: object, *, draws: int, kill_at: int = 0, seconds: float = 30.0) -> subprocess.Popen:
    arguments = [engine, str(path), str(draws), str(kill_at), str(seconds)]
    command = [sys.executable, "-W", "ignore", "-m", "tests.inference.stored_run", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupt(process: subprocess.Popen, seconds: float) -> str:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "begun"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.sampling
def test_ctrl_c_keeps_what_was_drawn():
    said = interrupt(run_process("collapsed", "none", draws=1_000_000), 2.0)  # minutes, uninterrupted
    assert '"asked": 1000000' in said and "not assessable" in said
    assert "Sampling was interrupted" in said and "Sample again for a fit to rely on." in said


@pytest.mark.sampling
def test_kill_9_loses_no_finished_chain(whole, tmp_path):
    process = run_process("collapsed", tmp_path / "fit.zarr", draws=DRAWS, kill_at=2)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "fit.zarr" / "lock.json").exists()
    assert sorted(open_store(tmp_path / "fit.zarr").finished()) == [0, 1]
    assert same_draws(psm.resume(tmp_path / "fit.zarr", progressbar=False), whole)


@contextmanager
def stored_process(engine: str, path: Path, *, draws: int, seconds: float) -> Iterator[subprocess.Popen]:
    """A run in a process of its own, which never outlives the test."""
    process = run_process(engine, path, draws=draws, seconds=seconds)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(file: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{file.name} did not appear in {PATIENCE:.0f} s"
        time.sleep(0.1)


def resumed(path: Path) -> xr.DataTree:
    """Go on; these runs are too short to pass every check of sampling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", psm.SamplingWarning)
        return psm.resume(path, progressbar=False)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["collapsed", "explicit"])
def test_ctrl_c_in_a_stored_run_saves_and_says_how_to_go_on(engine, tmp_path):
    path = tmp_path / "fit.zarr"
    draws = {"collapsed": 40_000, "explicit": 1500}[engine]
    with stored_process(engine, path, draws=draws, seconds=0.5) as process:
        wait_for(path / "chain-0-0000.npz", process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "Go on with psymech.resume" in out and "not assessable" in out
    with pytest.warns(psm.SamplingWarning):
        partial = psm.salvage(path)
    n = partial["posterior"].sizes["draw"]
    assert n > 0
    tree = resumed(path)
    assert np.array_equal(
        tree["posterior"]["sigma"][: partial["posterior"].sizes["chain"], :n], partial["posterior"]["sigma"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "draws", "kills", "within"), [("collapsed", 5000, 6, 12.0), ("explicit", 300, 2, 40.0)]
)
def test_killed_at_any_time_and_resumed_the_draws_are_the_same(engine, draws, kills, within, tmp_path):
    """Kills at drawn moments after the run has begun; what is there is resumed."""
    expected = sample(built(engine), draws=draws)
    rng = np.random.default_rng(3)
    for k in range(kills):
        path = tmp_path / f"fit{k}.zarr"
        with stored_process(engine, path, draws=draws, seconds=0.3) as process:
            wait_for(path / "journal", process)
            time.sleep(rng.uniform(0, within))
        assert same_draws(resumed(path), expected)


def test_options_of_a_run_are_compared(stopped):
    check_options(stopped, {"draws": DRAWS, "engine": "auto"})
    with pytest.raises(psm.SpecError, match="begun with draws=150, now 200"):
        check_options(stopped, {"draws": 200})


def test_a_format_of_another_version_is_refused(stopped, monkeypatch):
    monkeypatch.setattr(storing, "FORMAT", 2)
    with pytest.raises(psm.DataError, match="format 1"):
        psm.resume(stopped, progressbar=False)


def test_fit_checks_a_stored_run(tmp_path):
    data = psm.load_example("process_study")
    with pytest.warns(psm.SamplingWarning):
        psm.fit(
            psm.growth("phq9"), data, draws=20, tune=100, chains=2, seed=1, store=tmp_path / "a.nc", progressbar=False
        )
    assert "check_seconds" in psm.load(tmp_path / "a.nc").attrs

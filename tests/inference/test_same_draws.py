"""Same seed, same draws: in one process, and in processes that find other compiled functions on the disk."""

import os
import subprocess
import sys
from pathlib import Path

import nutpie
import pymc as pm
import pytest
from pytensor import config

import psymech as psm
from psymech.inference.arithmetic import strict_arithmetic
from psymech.inference.refits import compile_refits
from tests.inference.fresh_process import OPTIONS, SPECS
from tests.inference.studies import small_data

ROOT = Path(__file__).parents[2]


class Compiling(Exception):
    """In place of a compiler."""


@pytest.fixture
def explicit() -> psm.BuiltModel:
    return psm.build_model(SPECS["collapsed"], small_data(1), engine="explicit")


def test_models_are_compiled_without_fast_math(explicit: psm.BuiltModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler(*args, **kwargs):
        raise Compiling(config.numba__fastmath)

    monkeypatch.setattr(config, "numba__fastmath", True)
    monkeypatch.setattr(nutpie, "compile_pymc_model", compiler)
    monkeypatch.setattr(pm, "sample", compiler)
    with pytest.raises(Compiling, match="False"):
        psm.sample(explicit, **OPTIONS)
    with pytest.raises(Compiling, match="False"):
        psm.sample(explicit, sampler="pymc", **OPTIONS)
    with pytest.raises(Compiling, match="False"):
        compile_refits(explicit)
    assert config.numba__fastmath


@pytest.mark.parametrize("before", [True, False])
def test_the_last_to_compile_puts_the_setting_back(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "numba__fastmath", before)
    first, second = strict_arithmetic(), strict_arithmetic()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not config.numba__fastmath
    second.__exit__(None, None, None)
    assert config.numba__fastmath is before


@pytest.mark.slow
def test_two_builds_of_an_explicit_model_give_the_same_draws() -> None:
    trees = []
    for _ in range(2):
        model = psm.build_model(SPECS["explicit"], small_data(1), engine="explicit")
        trees.append(psm.sample(model, **OPTIONS))
    assert trees[0]["posterior"].to_dataset().identical(trees[1]["posterior"].to_dataset())
    assert trees[0]["sample_stats"].to_dataset().identical(trees[1]["sample_stats"].to_dataset())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["explicit", "collapsed"])
def test_what_is_compiled_already_does_not_change_the_draws(engine: str, tmp_path: Path) -> None:
    with_nothing, from_disk, after_another = (
        in_a_fresh_process(engine, tmp_path / cache, *more) for cache, *more in (("one",), ("one",), ("other", "first"))
    )
    assert with_nothing == from_disk
    assert with_nothing == after_another


def in_a_fresh_process(engine: str, cache: Path, *more: str) -> str:
    flags = f"{os.environ.get('PYTENSOR_FLAGS', '')},base_compiledir={cache / 'pytensor'}".lstrip(",")
    environment = os.environ | {"PYTENSOR_FLAGS": flags, "NUMBA_CACHE_DIR": str(cache / "numba")}
    command = [sys.executable, "-m", "tests.inference.fresh_process", engine, *more]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout

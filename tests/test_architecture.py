"""The rules of ARCHITECTURE.md that a machine can check."""

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import psymech

HEAVY = ("pymc", "pytensor", "arviz", "arviz_plots", "matplotlib", "jax", "nutpie", "numba")
BINARY = {".nc", ".parquet", ".png", ".sav", ".gz", ".zip", ".pdf", ".ico"}
# Written so that no pattern matches itself.
NOT_FOR_THE_PROJECT = {
    "a registry's host": re.compile(r"py[p]i\.org|pythonhosted\.or[g]|npmj[s]\.(org|com)|crate[s]\.io"),
    "a path of one machine": re.compile(r"(?<![\w.~)}/])/(?:[w]ork|[t]mp|[r]oot|[h]ome|[U]sers)/\w"),
}

PUBLIC = [name for name in psymech.__all__ if not name.startswith("__")]


def _fresh_python(code: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSTARTUP"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _tracked_files(root: Path) -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed, so the tracked files are unknown")
    if listed.returncode != 0:
        pytest.skip("this copy is no git checkout, so the tracked files are unknown")
    return [root / name for name in listed.stdout.decode().split("\0") if name]


def test_imports_point_one_way(repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(repository)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_importing_psymech_loads_nothing_heavy():
    loaded = json.loads(_fresh_python("import json, sys, psymech; print(json.dumps(sorted(sys.modules)))"))
    assert "psymech" in loaded
    assert not set(HEAVY) & {module.partition(".")[0] for module in loaded}


def test_every_folder_of_modules_is_a_package(repository: Path):
    folders = {path.parent for path in (repository / "psymech").rglob("*.py")}
    assert folders
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_version_is_the_one_declared(repository: Path):
    declared = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert psymech.__version__ == declared


def test_package_says_that_it_is_typed(repository: Path):
    assert (repository / "psymech" / "py.typed").is_file()


def test_public_names_are_unique_and_listed():
    assert len(set(psymech.__all__)) == len(psymech.__all__)
    assert set(psymech.__all__) <= set(dir(psymech))


def test_type_checkers_see_every_public_name(repository: Path):
    text = (repository / "psymech" / "__init__.py").read_text(encoding="utf-8")
    seen = re.findall(r"^    from psymech\.(\S+) import (\w+) as \2$", text, flags=re.MULTILINE)
    assert {name: home for home, name in seen} == psymech._HOME


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name: str):
    value = getattr(psymech, name)
    written = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    assert written, f"psymech.{name} has no docstring"
    assert not written.startswith(f"{name}("), f"psymech.{name} has only what a dataclass writes by itself"


def test_public_functions_take_no_catch_all_keywords():
    functions = {name: value for name in PUBLIC if inspect.isfunction(value := getattr(psymech, name))}
    assert functions
    catch_all = inspect.Parameter.VAR_KEYWORD
    kinds = {name: [p.kind for p in inspect.signature(value).parameters.values()] for name, value in functions.items()}
    assert [name for name in kinds if catch_all in kinds[name]] == []


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        psymech.no_such_name  # noqa: B018


def test_tracked_files_name_no_registry_and_no_machine(repository: Path):
    found = []
    for path in _tracked_files(repository):
        if path.suffix in BINARY or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found += [
                f"{path.relative_to(repository)}:{number}: {what}: {line.strip()[:120]}"
                for what, pattern in NOT_FOR_THE_PROJECT.items()
                if pattern.search(line)
            ]
    assert found == []


def test_pinned_versions_carry_no_address(repository: Path):
    pins = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.+!]*( ; .+)?", pin)] == []

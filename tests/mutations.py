"""Turns each refusal off, one at a time, and looks whether a test notices: python -m tests.mutations [module ...].

Every ``raise`` in the modules named becomes ``pass``. The tests are run once to see which of them reach which refusal
(sys.monitoring); each mutant is then run, in a forked process, with the tests that reach it. A mutant that no test
reaches, or that all those tests pass, survives.
"""

import ast
import importlib
import inspect
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
MODULES: Final = tuple(
    sorted(
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for folder in ("data", "spec")
        for path in (ROOT / "psymech" / folder).glob("*.py")
        if path.stem != "__init__"
    )
)
TESTS: Final = (
    "tests/data",
    "tests/models/test_spec_growth.py",
    "tests/models/test_spec_json.py",
    "tests/models/test_spec_process.py",
    "tests/models/test_spec_refusals.py",
    "tests/models/test_residual_sds.py::test_specifications_are_checked",
    "tests/models/test_membership.py::test_what_is_refused",
    "tests/models/test_priors.py",
    "tests/test_errors.py",
)
TOOL: Final = 4  # of sys.monitoring
MAX_TESTS: Final = 6  # that are tried on a mutant before all the others that reach it
QUICKLY: Final = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "-m", "not slow and not sampling")


@dataclass(frozen=True)
class Refusal:
    """A raise statement: where it stands, and in which function."""

    module: str
    function: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.module}:{self.first} ({self.function})"


def refusals(module: str) -> Iterator[Refusal]:
    """Return the raise statements of a module, each with the function of the module or class that holds it."""
    source = Path(str(importlib.import_module(module).__file__)).read_text()
    for name, function in functions(ast.parse(source).body, ""):
        for node in ast.walk(function):
            if isinstance(node, ast.Raise) and node.exc is not None:
                yield Refusal(module, name, node.lineno, node.end_lineno or node.lineno)


def functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")


class _Off(ast.NodeTransformer):
    def __init__(self, line: int) -> None:
        self.line = line

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if node.lineno == self.line else node


def turn_off(refusal: Refusal) -> None:
    """Put the function without the refusal in place of the function, for this process."""
    module = importlib.import_module(refusal.module)
    path = Path(str(module.__file__))
    tree = ast.fix_missing_locations(_Off(refusal.first).visit(ast.parse(path.read_text())))
    code = found_code(compile(tree, str(path), "exec"), refusal.function)
    holder(module, refusal.function).__code__ = code


def found_code(code: CodeType, name: str) -> CodeType:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            if const.co_qualname == name:
                return const
            if name.startswith(f"{const.co_qualname}."):
                return found_code(const, name)
    raise LookupError(name)


def holder(module: ModuleType, name: str) -> Any:
    """Return the plain function of a name, below decorators and properties."""
    found: Any = module
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
    return inspect.unwrap(found)


class Reached:
    """A pytest plugin that notes which test reaches which line of which file that raises."""

    def __init__(self, files: set[str]) -> None:
        self.files = files
        self.tests: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        self.current = ""

    def raised(self, code: CodeType, offset: int, problem: BaseException) -> None:
        if code.co_filename in self.files and self.current:
            line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
            tests = self.tests[code.co_filename, line or 0]
            if self.current not in tests[-1:]:
                tests.append(self.current)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.current = item.nodeid
        result = yield
        self.current = ""
        return result


def reach(found: list[Refusal]) -> dict[Refusal, list[str]]:
    """Run the tests once and return those that reach each refusal."""
    files = {refusal.module: str(importlib.import_module(refusal.module).__file__) for refusal in found}
    plugin = Reached(set(files.values()))
    monitoring = sys.monitoring
    monitoring.use_tool_id(TOOL, "mutations")
    monitoring.register_callback(TOOL, monitoring.events.RAISE, plugin.raised)
    monitoring.set_events(TOOL, monitoring.events.RAISE)
    failed = pytest.main([*QUICKLY, *TESTS], plugins=[plugin])
    monitoring.set_events(TOOL, 0)
    monitoring.free_tool_id(TOOL)
    if failed:
        raise SystemExit("the tests fail without a mutant")
    return {
        refusal: list(
            dict.fromkeys(
                test
                for line in range(refusal.first, refusal.last + 1)
                for test in plugin.tests[files[refusal.module], line]
            )
        )
        for refusal in found
    }


def notices(refusal: Refusal, tests: list[str]) -> bool:
    """Return whether one of the tests fails without the refusal."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = 2
        try:
            turn_off(refusal)
            code = int(pytest.main([*QUICKLY, "-x", *tests]))
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, 1):
        raise SystemExit(f"{refusal}: the tests could not be run (exit status {status})")
    return status == 1


def main(modules: tuple[str, ...]) -> int:
    os.chdir(ROOT)
    found = [refusal for module in modules for refusal in refusals(module)]
    reached = reach(found)
    surviving = []
    for refusal, tests in reached.items():
        groups = [tests[:MAX_TESTS], tests[MAX_TESTS:]]
        killed = any(notices(refusal, group) for group in groups if group)
        if not killed:
            surviving.append(refusal)
        print(f"{'noticed ' if killed else 'SURVIVES'} {refusal}, reached by {len(tests)} tests", flush=True)
    killed = len(found) - len(surviving)
    print(json.dumps({"refusals": len(found), "noticed": killed, "surviving": [str(each) for each in surviving]}))
    return len(surviving)


if __name__ == "__main__":
    sys.exit(min(1, main(tuple(sys.argv[1:]) or MODULES)))

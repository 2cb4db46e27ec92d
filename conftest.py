"""The fits that examples in docstrings share, made by the blocks of docs/api.md when the first example asks for one."""

import re
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import xarray as xr

PAGE = Path(__file__).resolve().parent / "docs" / "api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FITS = ("tree", "course", "mediated", "several")


@cache
def shared_fit(name: str) -> xr.DataTree:
    """Run the page's first block as far as the data, then the block that ends in the fit of this name."""
    from psymech.errors import DesignWarning
    from psymech.inference.sample import SamplingWarning

    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    (wanted,) = [block for block in blocks if re.search(rf"^{name} = ", block, re.MULTILINE)]
    first = "" if wanted == blocks[0] else blocks[0].partition("varying")[0]
    namespace: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)  # short chains
        warnings.simplefilter("ignore", DesignWarning)  # a patient of the shipped study has one lagged session
        exec(compile(first + wanted, PAGE.name, "exec"), namespace)
    tree = namespace[name]
    assert isinstance(tree, xr.DataTree)
    return tree


@pytest.fixture(autouse=True)
def shared_fits(
    request: pytest.FixtureRequest,
    doctest_namespace: dict[str, object],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Give a docstring's examples the fits they name, and a folder of their own to write to."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    monkeypatch.chdir(tmp_path_factory.mktemp("example"))
    said = "".join(example.source for example in request.node.dtest.examples)
    for name in FITS:
        if re.search(rf"\b{name}\b", said) and not re.search(rf"^{name} = ", said, re.MULTILINE):
            doctest_namespace[name] = shared_fit(name)
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

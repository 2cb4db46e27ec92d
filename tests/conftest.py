"""What every test shares: the folder of reference data, hypothesis's settings and the order of the tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Compiling inside an example takes seconds, so no example has a deadline; in CI the examples are the same every time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("PYTENSOR_FLAGS", "blas__ldflags=")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the reference data that the project may read but not ship."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder shared/data beside the checkout, which holds the reference data sets, is absent")
    return SHARED_DATA


@pytest.fixture
def shared_file(shared_data: Path):
    """Give a function that turns a path under shared/data into a file's path, and skips where the file is absent."""

    def locate(relative: str) -> Path:
        path = shared_data / relative
        if not path.is_file():
            pytest.skip(f"shared/data/{relative} is absent")
        return path

    return locate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs no sampling first, so that a plain mistake shows within seconds."""

    def lateness(item: pytest.Item) -> tuple[bool, bool]:
        return item.get_closest_marker("slow") is not None, item.get_closest_marker("sampling") is not None

    items.sort(key=lateness)

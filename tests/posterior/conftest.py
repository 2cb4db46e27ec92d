from pathlib import Path

import pytest
import xarray as xr

from tests.posterior.fitted_trees import make_tree


@pytest.fixture(scope="session")
def made() -> xr.DataTree:
    return make_tree()


@pytest.fixture(scope="session")
def stored(made: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """The same tree after a trip through netCDF."""
    path: Path = tmp_path_factory.mktemp("fit") / "fit.nc"
    made.to_netcdf(path)
    with xr.open_datatree(path) as tree:
        return tree.load()


@pytest.fixture(params=["made", "stored"])
def tree(request: pytest.FixtureRequest) -> xr.DataTree:
    return request.getfixturevalue(request.param)

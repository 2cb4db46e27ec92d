"""Which versions made a fit."""

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("psymech", "pymc", "pytensor", "nutpie", "arviz", "numpy", "scipy", "numba", "xarray", "jax", "numpyro")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed.

    >>> sorted(library_versions())[-1]
    'xarray'
    """
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

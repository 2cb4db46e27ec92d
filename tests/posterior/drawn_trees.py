"""Trees as a fit writes them, with invented draws: what reads a tree can be tested without sampling."""

import numpy as np
import xarray as xr

import psymech as psm
from psymech import names
from psymech.columns import settle_levels
from psymech.design import make_design
from psymech.inference.tree import assemble_tree, tree_coords, variable_dims


def drawn_tree(
    spec: psm.ModelSpec, data: psm.SessionData, *, seed: int = 1, chains: int = 2, draws: int = 40
) -> xr.DataTree:
    """Return a tree for the design with draws that have the right shapes and ranges, and no meaning."""
    design = make_design(spec, data)
    rng = np.random.default_rng(seed)
    coords = tree_coords(design)
    values = {}
    for name, dims in variable_dims(design).items():
        shape = (chains, draws, *(len(coords[dim]) for dim in dims))
        if name.startswith("sd_") or name == names.SIGMA:
            values[name] = np.exp(0.2 * rng.normal(size=shape))
        elif name in (names.PHI, names.CORR_LOG_SIGMA):
            values[name] = rng.uniform(0.2, 0.6, size=shape)
        elif name.startswith("corr_"):
            q = shape[-1]
            off = np.triu(rng.uniform(-0.3, 0.3, size=shape), 1)
            values[name] = np.eye(q) + off + np.swapaxes(off, -1, -2)
        elif name == names.NU:
            values[name] = rng.uniform(4.0, 8.0, size=shape)
        elif name == names.CUTPOINTS:
            values[name] = np.sort(rng.normal(size=shape), axis=-1)
        else:
            values[name] = rng.normal(size=shape)
    settled = settle_levels(spec, data)  # as a fit stores it
    return assemble_tree(
        values, {"lp": rng.normal(size=(chains, draws))}, spec=settled, design=design, attrs={"seed": seed}
    )

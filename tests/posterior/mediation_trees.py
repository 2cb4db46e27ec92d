"""Trees of mediation models whose draws are chosen, not sampled."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import psymech as psm
from psymech import names
from psymech.columns import settle_levels
from psymech.design import make_design
from psymech.inference.tree import assemble_tree, variable_dims
from psymech.spec.model import ModelSpec

CHAINS, DRAWS = 2, 40


def chosen_tree(spec: ModelSpec, data: psm.SessionData, seed: int = 1, **values: NDArray) -> xr.DataTree:
    """Return a tree with random draws of every variable, or those in `values` (dims without chain and draw)."""
    rng = np.random.default_rng(seed)
    design = make_design(spec, data)
    sizes = {names.TERM: len(design.terms), names.RESPONSE: len(design.responses)}
    sizes[names.RESPONSE + names.AUX] = len(design.responses)
    for level in design.levels:
        dim = names.term_dim(level.level)
        sizes |= {level.level: level.n_units, dim: len(level.terms), dim + names.AUX: len(level.terms)}
    if design.imputation is not None:
        sizes[names.MISSING] = design.imputation.n
    if design.slope_predictors is not None:
        sizes[names.LOADING_TERM] = len(design.slope_predictors.labels)
    draws = {}
    for name, dims in variable_dims(design).items():
        shape = (CHAINS, DRAWS, *(sizes[d] for d in dims))
        if name in values:
            draws[name] = np.broadcast_to(values[name], shape).copy()
        elif name.startswith("corr_"):
            q = shape[-1]
            factor = rng.normal(size=(*shape[:-1], q + 2))
            full = factor @ np.swapaxes(factor, -1, -2)
            scale = np.sqrt(np.einsum("...ii->...i", full))
            draws[name] = full / scale[..., :, None] / scale[..., None, :]
        else:
            drawn = rng.normal(size=shape)
            draws[name] = np.abs(drawn) + 0.1 if name.startswith(("sd_", "sigma")) else drawn
    return assemble_tree(draws, {}, spec=settle_levels(spec, data), design=design, attrs={})

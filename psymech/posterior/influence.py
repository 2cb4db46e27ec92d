"""Whether single therapists drive the answer: Pareto k of leaving each one out."""

import xarray as xr

from psymech.posterior.model_report import ModelCheck


def therapist_influence(tree: xr.DataTree) -> list[ModelCheck]:
    """Return nothing yet."""
    return []

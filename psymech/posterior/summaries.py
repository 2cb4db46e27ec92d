"""Intervals and their names: ArviZ's defaults, spelt as ArviZ spells them."""

import xarray as xr

from psymech.arguments import is_number
from psymech.errors import SpecError
from psymech.names import SAMPLE_DIMS


def interval_kind() -> str:
    """Return ArviZ's setting for the kind of interval: ``eti`` or ``hdi``."""
    import arviz_base

    return str(arviz_base.rcParams["stats.ci_kind"])


def interval_prob(ci_prob: float | None) -> float:
    """Return the probability of an interval, ArviZ's setting (0.89) by default; SpecError outside (0, 1)."""
    import arviz_base

    prob = float(arviz_base.rcParams["stats.ci_prob"]) if ci_prob is None else ci_prob
    if not (is_number(prob) and 0.0 < prob < 1.0):
        raise SpecError(f"ci_prob: expected a probability between 0 and 1, found {ci_prob!r}.")
    return float(prob)


def interval_names(ci_prob: float | None) -> tuple[str, str]:
    """Return the names of the interval's columns: ``eti89_lb`` and ``eti89_ub``."""
    stem = f"{interval_kind()}{100 * interval_prob(ci_prob):g}"
    return f"{stem}_lb", f"{stem}_ub"


def interval(values: xr.DataArray, ci_prob: float | None) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the lower and upper bound over chain and draw, of the kind that ArviZ is set to."""
    from arviz_stats.visualization import eti, hdi

    bound = hdi if interval_kind() == "hdi" else eti
    bounds = bound(values, prob=interval_prob(ci_prob), dim=list(SAMPLE_DIMS))
    return bounds.sel(ci_bound="lower", drop=True), bounds.sel(ci_bound="upper", drop=True)

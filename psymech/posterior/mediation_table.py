"""The table of a mediation model for a publication: paths, their spread, and the effects that follow from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.posterior.mediation import ARROW, indirect_effects
from psymech.posterior.mediation_paths import PATH_LEVELS, MediationTree, Path, read_mediation
from psymech.posterior.summaries import interval, interval_names

Floats = NDArray[np.float64]
AGREEING = 0.95  # share of draws in which direct and indirect effect must have one sign for a proportion to be reported


def mediation_table(
    tree: xr.DataTree, *, ci_prob: float | None = None, at: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Table of a mediation model for a publication: paths, their spread, indirect, direct and total effects by level.

    Parameters
    ----------
    tree
        A fit of :func:`psymech.mediation`.
    ci_prob
        Probability of the interval; ArviZ's setting (0.89) by default.
    at
        Values of moderators; their means by default.

    Returns
    -------
    DataFrame
        Columns ``level``, ``effect`` (path, SD of a path, covariance of paths, indirect, direct, total, proportion),
        ``of``, ``mean``, ``sd``, the interval and ``note``. A proportion is given only where direct and indirect
        effect have one sign in 95% of the draws.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.mediation_table(mediated, ci_prob=0.95).columns.tolist()
    ['level', 'effect', 'of', 'mean', 'sd', 'eti95_lb', 'eti95_ub', 'note']
    """
    model = read_mediation(tree, at=at)
    low_name, high_name = interval_names(ci_prob)
    rows: list[dict[str, object]] = []

    def add(level: str, effect: str, of: str, draws: Floats, note: str = "") -> None:
        values = xr.DataArray(draws, dims=names.SAMPLE_DIMS)
        low, high = interval(values, ci_prob)
        rows.append(
            {
                "level": level,
                "effect": effect,
                "of": of,
                "mean": float(values.mean()),
                "sd": float(values.std(ddof=1)),
                low_name: float(low),
                high_name: float(high),
                "note": note,
            }
        )

    for path in _ordered(model):
        add(path.level, f"path {path.letter}", f"{path.source}{ARROW}{path.target}", path.draws)
    for unit in model.covariance:
        _add_spread(add, model, unit)
    effects = indirect_effects(tree, at=at)
    extra = [d for d in ("treatment", "outcome") if d in effects.dims]
    stacked = effects.stack(of=[*extra, "level"]) if extra else effects.rename(level="of")
    for index in range(stacked.sizes["of"]):
        one = stacked.isel(of=index)
        key = one["of"].item()
        level = key[-1] if extra else key
        prefix = f"{ARROW.join(key[:-1])}: " if extra else ""
        for mediator in one["mediator"].values:
            each = one.sel(mediator=mediator)
            if bool(each["indirect"].isnull().all()):
                continue
            add(level, "indirect", f"{prefix}{mediator}", each["indirect"].transpose(*names.SAMPLE_DIMS).values)
            if level == "within" and bool((each["product_of_means"] != each["indirect"]).any()):
                off = each["product_of_means"].transpose(*names.SAMPLE_DIMS).values
                add(
                    level,
                    "product of means",
                    f"{prefix}{mediator}",
                    off,
                    "for comparison only, not the indirect effect",
                )
            _add_proportion(add, rows, each, level, f"{prefix}{mediator}", (low_name, high_name))
        first = one.isel(mediator=0)
        if len(one["mediator"]) > 1:
            add(level, "total indirect", prefix, first["total_indirect"].transpose(*names.SAMPLE_DIMS).values)
        for name in ("direct", "total"):
            add(level, name, prefix, first[name].transpose(*names.SAMPLE_DIMS).values)
    return pd.DataFrame(rows)


def _ordered(model: MediationTree) -> list[Path]:
    return sorted(model.paths.values(), key=lambda p: (PATH_LEVELS.index(p.level), p.letter, p.target, p.source))


def _add_spread(add: Any, model: MediationTree, unit: str) -> None:
    labels = model.covariance[unit][0]
    varying = [p for p in _ordered(model) if p.label in labels]
    for i, path in enumerate(varying):
        spread = model.covariance_of(unit, varying)
        of = f"{path.source}{ARROW}{path.target}"
        add("within", f"SD of {path.letter} over {unit}s", of, np.sqrt(spread[..., i, i]))
        for j in range(i):
            first = varying[j]
            if first.target == path.source:
                add(
                    "within",
                    f"cov({first.letter}, {path.letter}) over {unit}s",
                    f"{first.source}{ARROW}{of}",
                    spread[..., i, j],
                )


def _add_proportion(
    add: Any, rows: list[dict[str, object]], each: xr.Dataset, level: str, of: str, bounds: tuple[str, str]
) -> None:
    draws = each["proportion"].transpose(*names.SAMPLE_DIMS).values
    agree = float(np.isfinite(draws).mean())
    if agree >= AGREEING:
        median = np.nanmedian(draws)
        add(level, "proportion", of, np.where(np.isfinite(draws), draws, median))
        return
    rows.append(
        {
            "level": level,
            "effect": "proportion",
            "of": of,
            "mean": np.nan,
            "sd": np.nan,
            bounds[0]: np.nan,
            bounds[1]: np.nan,
            "note": f"direct and indirect effect have one sign in {100 * agree:.0f}% of the draws only",
        }
    )

"""Standardised fixed effects: by the spread of the column, of the outcome, or of the level where the column lives."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.names import CHAIN, DRAW, LEVELS, SAMPLE_DIMS, TERM
from psymech.posterior import tree as read
from psymech.posterior.r2 import r2
from psymech.posterior.variance import RESIDUAL

Standardize = Literal["none", "x", "total", "level"]


def standard_factors(tree: xr.DataTree, *, how: Standardize, response: str) -> xr.DataArray:
    r"""Return what the coefficients of a response are multiplied by, dims (chain, draw, term).

    ``"x"``: the SD of the column over the rows of the response. ``"total"``: that over the SD of the outcome that the
    model implies, fixed and random parts and residual (:func:`psymech.r2`; latent logistic for binary and ordinal
    outcomes). ``"level"``: the denominator is the SD of the outcome at the level at which the column lives: within
    patients for ``x.within``, between patients of a therapist for ``x.patient`` (without therapists in the data:
    between patients), between therapists for ``x.therapist``, differences between clinics included as they are in the
    column; NaN for columns that live at no single level, such as ``x.patient`` and ``x.therapist`` where patients
    change therapist. The residual is part of the lowest level: within
    patients, or between them where the response has one value a patient. Constant columns and intercepts are NaN.

    References
    ----------
    Schuurman, Ferrer, de Boer-Sonnenschein & Hamaker (2016), How to compare cross-lagged associations in a multilevel
    autoregressive model, Psychological Methods 21, 206-221. https://doi.org/10.1037/met0000062
    """
    if how not in get_args(Standardize) or how == "none":
        raise SpecError(f"standardize: expected one of {', '.join(get_args(Standardize))}, found {how!r}.")
    rows = read.rows_of_response(tree, response)
    data = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM)
    known = read.labels_of(data, TERM)
    entries = read.response_terms(tree, response)
    labels = [str(entry["label"]) for entry in entries]
    spread = data.values[rows][:, [known.index(label) for label in labels]].astype(float).std(axis=0)
    spread = np.where(spread > 0, spread, np.nan)
    draws = read.posterior(tree)
    shape = (draws.sizes[CHAIN], draws.sizes[DRAW], len(labels))
    values = np.broadcast_to(spread, shape).copy()
    if how != "x":
        values /= np.sqrt(
            _variances(tree, response, [str(entry["part"]) for entry in entries], by_level=how == "level")
        )
    coords = {CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, TERM: labels}
    return xr.DataArray(values, dims=(*SAMPLE_DIMS, TERM), coords=coords)


def _variances(tree: xr.DataTree, response: str, parts: list[str], *, by_level: bool) -> np.ndarray:
    """Return the outcome's variance that each term is standardised by, shape (chain, draw, terms)."""
    sources = r2(tree, response=response)["variance"].transpose(*SAMPLE_DIMS, "source")
    every = [str(source) for source in sources["source"].values]
    without = int(sources.sel(source=RESIDUAL).isnull().sum())
    if without:
        raise SpecError(
            f"standardize='total' and 'level' divide by the SD of {response!r}, which has none in {without} of "
            f"{sources.shape[0] * sources.shape[1]} draws (Student residuals with nu <= 2). Use standardize='x'."
        )
    if not by_level:
        return np.repeat(sources.sum("source").values[..., None], len(parts), axis=-1)
    own = read.level_of_response(tree, response)
    lowest = "within" if own == "session" else own
    spans = _spans(tree, parts)
    out = np.full((*sources.shape[:2], len(parts)), np.nan)
    for index, part in enumerate(parts):
        if part not in spans:
            continue
        members = [source for source in every if any(_lives_at(source, level, lowest) for level in spans[part])]
        total = sources.sel(source=members).sum("source").values
        out[..., index] = np.where(total > 0, total, np.nan)
    return out


def _spans(tree: xr.DataTree, parts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Levels between whose units a part of a variable differs; the highest part holds all differences above."""
    if not read.json_attr(tree, names.ATTR_DESIGN).get("nested", True):
        return {"within": ("within",)}
    of_patients = ("patient",) if "therapist" in parts else LEVELS
    return {"within": ("within",), "patient": of_patients, "therapist": ("therapist", "clinic")}


def _lives_at(source: str, level: str, lowest: str) -> bool:
    """Whether a part of r2 is variance at a level; `lowest` is where the response varies beyond its units."""
    changing = source == RESIDUAL or source.startswith(("slopes.", "switching."))
    return source in (f"fixed.{level}", f"means.{level}") or (level == lowest and changing)

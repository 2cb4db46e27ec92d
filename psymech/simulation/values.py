"""True parameters and true estimands as one labelled dataset, under the names of a fitted tree."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.data.sessions import SessionData
from psymech.design import Design
from psymech.names import Level
from psymech.simulation.truth import LATENT_SD, Parameters
from psymech.spec.model import ModelSpec

Floats = NDArray[np.float64]
LEVEL = "level"
RESIDUAL = "residual"


def true_values(
    spec: ModelSpec,
    parameters: Parameters,
    effects: Mapping[Level, Floats],
    design: Design,
    data: SessionData,
    expected: Floats,
) -> xr.Dataset:
    """Return every true value; `expected` is the linear predictor of each session, shape (n_sessions,)."""
    out: dict[str, tuple[tuple[str, ...], object]] = {names.BETA: ((names.TERM,), parameters.beta)}
    coords: dict[str, object] = {names.TERM: list(parameters.terms)}
    for level in parameters.levels:
        name, dim = level.level, names.term_dim(level.level)
        effect = effects[name]
        coords |= {dim: list(level.terms), name: data.ids[name]}
        out[names.sd(name)] = ((dim,), level.sd)
        out[names.effect(name)] = ((name, dim), effect)
        out[f"rank_{name}"] = ((name, dim), effect.argsort(axis=0).argsort(axis=0) + 1)
        if level.correlated:
            coords[dim + names.AUX] = list(level.terms)
            out[names.corr(name)] = ((dim, dim + names.AUX), level.corr)
    for name in (names.SIGMA, names.PHI, names.NU):
        value = getattr(parameters, name)
        if value is not None:
            out[name] = ((), value)
    if parameters.cutpoints is not None:
        out[names.CUTPOINTS] = ((names.THRESHOLD,), parameters.cutpoints)
    variance = _variances(spec, parameters, design)
    coords[LEVEL] = list(variance)
    out["variance"] = ((LEVEL,), np.array(list(variance.values())))
    out["variance_partition"] = ((LEVEL,), np.array(list(variance.values())) / sum(variance.values()))
    out["expected"] = (("session",), expected)
    return xr.Dataset(out, coords=coords)


def _variances(spec: ModelSpec, parameters: Parameters, design: Design) -> dict[str, float]:
    """Variance at each level, averaged over the rows of the design: the mean of z' Omega z."""
    out: dict[str, float] = {}
    for level in reversed(parameters.levels):
        found = design.level(level.level)
        if found is None or found.terms != level.terms:
            raise AssertionError(f"the design of level {level.level} differs from the simulated one")
        share = 1.0 if found.members is None else (found.members.weight**2).sum(axis=1)
        out[level.level] = float((((found.Z @ level.factor) ** 2).sum(axis=1) * share).mean())
    out[RESIDUAL] = _residual(spec, parameters)
    return out


def _residual(spec: ModelSpec, parameters: Parameters) -> float:
    """Variance of the residual: sigma^2, sigma^2 nu / (nu - 2) for Student, pi^2 / 3 on the latent logistic scale."""
    if parameters.sigma is None:
        return LATENT_SD**2
    if spec.family == "student" and parameters.nu is not None:
        return parameters.sigma**2 * parameters.nu / (parameters.nu - 2) if parameters.nu > 2 else float("nan")
    return parameters.sigma**2

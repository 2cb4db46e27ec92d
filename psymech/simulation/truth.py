"""True parameters of a simulated table: defaults on the scale of the columns, and what the user sets instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.spec.model import Family, ModelSpec, RandomBlock, Role
from psymech.spec.priors import variable_of

Floats = NDArray[np.float64]
TruthValue = float | Sequence[float] | Mapping[str, float] | NDArray[np.float64]
TruthKeys = Mapping[str, TruthValue]

LATENT_SD = float(np.pi / np.sqrt(3))  # of the standard logistic distribution
DEFAULT_SIGMA = 2.0
DEFAULT_INTERCEPT = 10.0
DEFAULT_SLOPE = -0.25  # in residual SDs per SD of the column: every predictor lowers the outcome
DEFAULT_PRODUCT = 0.10
DEFAULT_CARRY_OVER = 0.3
DEFAULT_SD = {"patient": (1.0, 0.3), "therapist": (0.4, 0.15), "clinic": (0.25, 0.1)}  # intercept, slopes; residual SDs
DEFAULT_CORRELATION = 0.2
DEFAULT_PHI = 0.4
DEFAULT_NU = 5.0
DEFAULT_CUTPOINTS = (-2.0, -0.7, 0.7, 2.0)


@dataclass(frozen=True, slots=True)
class LevelTruth:
    """Random terms of one level with their SDs (k,) and correlations (k, k)."""

    level: names.Level
    terms: tuple[str, ...]
    sd: Floats
    corr: Floats
    correlated: bool

    @property
    def factor(self) -> Floats:
        """(k, k) matrix L with L L' the covariance."""
        return self.sd[:, None] * np.linalg.cholesky(self.corr)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Every parameter of a model at its true value; None where the family has no such parameter."""

    terms: tuple[str, ...]
    beta: Floats
    levels: tuple[LevelTruth, ...]
    sigma: float | None
    phi: float | None
    nu: float | None
    cutpoints: Floats | None


def default_parameters(
    spec: ModelSpec,
    roles: Sequence[Role],
    terms: Sequence[str],
    blocks: Sequence[RandomBlock],
    spread: Mapping[str, float],
) -> Parameters:
    """Return the defaults; `spread` is the SD of each column, so that an effect means the same on every scale."""
    family: Family = spec.family
    logit = family in ("bernoulli", "ordinal")
    scale = LATENT_SD if logit else DEFAULT_SIGMA
    beta = np.zeros(len(terms))
    for i, (role, term) in enumerate(zip(roles, terms, strict=True)):
        match role:
            case "intercept":
                beta[i] = 0.0 if logit else DEFAULT_INTERCEPT
            case "autoregressive":
                beta[i] = DEFAULT_CARRY_OVER
            case "interaction":
                beta[i] = DEFAULT_PRODUCT * scale / spread[term]
            case _:
                beta[i] = DEFAULT_SLOPE * scale / spread[term]
    levels = []
    for block in blocks:
        of_intercept, of_slope = DEFAULT_SD[block.level]
        sd = [scale * (of_intercept if t == names.INTERCEPT else of_slope / spread[t]) for t in block.terms]
        correlated = block.correlated and len(block.terms) > 1
        corr = np.full((len(sd), len(sd)), DEFAULT_CORRELATION if correlated else 0.0)
        np.fill_diagonal(corr, 1.0)
        levels.append(LevelTruth(block.level, block.terms, np.array(sd), corr, correlated))
    return Parameters(
        terms=tuple(terms),
        beta=beta,
        levels=tuple(levels),
        sigma=None if logit else DEFAULT_SIGMA,
        phi=DEFAULT_PHI if spec.residual == "ar1" else None,
        nu=DEFAULT_NU if family == "student" else None,
        cutpoints=np.array(DEFAULT_CUTPOINTS) if family == "ordinal" else None,
    )


def with_truth(parameters: Parameters, given: TruthKeys | None) -> Parameters:
    """Put the user's values in: ``"sigma"``, ``"beta[time]"``, ``"sd_therapist"`` for all terms or a mapping by term,
    ...

    A correlation is set by ``"corr_patient"``, one number for all pairs or the whole matrix.
    """
    now = parameters
    for key in sorted(given or {}, key=len):  # an entry such as beta[time] wins over beta
        value = (given or {})[key]
        variable = variable_of(key)
        entry = key[len(variable) + 1 : -1] if key.endswith("]") else None
        now = _set(now, key, variable, entry, value)
    return now


def _set(now: Parameters, key: str, variable: str, entry: str | None, value: TruthValue) -> Parameters:
    if variable == names.BETA:
        return replace(now, beta=_labelled(now.beta, now.terms, key, entry, value))
    for i, level in enumerate(now.levels):
        if variable == names.sd(level.level):
            sd = _labelled(level.sd, level.terms, key, entry, value)
            if (sd < 0).any():
                raise SpecError(f"truth: {key!r} is a standard deviation and cannot be negative, found {value!r}.")
            changed = replace(level, sd=sd)
        elif variable == names.corr(level.level) and entry is None:
            changed = replace(level, corr=_correlation(level, key, value))
        else:
            continue
        return replace(now, levels=(*now.levels[:i], changed, *now.levels[i + 1 :]))
    if entry is None and variable == names.CUTPOINTS and now.cutpoints is not None:
        cutpoints = _array(key, value)
        if cutpoints.ndim != 1 or cutpoints.size == 0 or (np.diff(cutpoints) <= 0).any():
            raise SpecError(f"truth: {key!r} must be numbers that increase strictly, found {value!r}.")
        return replace(now, cutpoints=cutpoints)
    limits = {names.SIGMA: (0.0, np.inf), names.PHI: (-1.0, 1.0), names.NU: (0.0, np.inf)}
    if entry is None and variable in limits and getattr(now, variable) is not None:
        number = _number(key, value)
        low, high = limits[variable]
        if not low < number < high:
            raise SpecError(f"truth: {key!r} must lie between {low:g} and {high:g}, found {number:g}.")
        return replace(now, **{variable: number})
    raise SpecError(f"truth: {key!r} names no parameter of this model. Expected one of {', '.join(_known(now))}.")


def _known(now: Parameters) -> list[str]:
    known = ["beta", *(f"beta[{t}]" for t in now.terms)]
    for level in now.levels:
        known += [names.sd(level.level), *(f"{names.sd(level.level)}[{t}]" for t in level.terms)]
        known += [names.corr(level.level)] if len(level.terms) > 1 else []
    own = (names.SIGMA, names.PHI, names.NU, names.CUTPOINTS)
    return known + [name for name in own if getattr(now, name) is not None]


def _number(key: str, value: TruthValue) -> float:
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise SpecError(f"truth: {key!r} must be a finite number, found {value!r}.")
    return number


def _array(key: str, value: object) -> Floats:
    try:
        values = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise SpecError(f"truth: {key!r} must be finite numbers, found {value!r}.")
    return values


def _labelled(old: Floats, labels: tuple[str, ...], key: str, entry: str | None, value: TruthValue) -> Floats:
    new = old.copy()
    if isinstance(value, Mapping) and entry is None:
        pairs = [(f"{key}[{label}]", label, number) for label, number in value.items()]
    elif entry is not None:
        pairs = [(key, entry, value)]
    else:
        values = _array(key, value)
        if values.ndim == 0:
            return np.full(old.shape, float(values))
        if values.shape != old.shape:
            raise SpecError(f"truth: {key!r} needs {old.size} finite numbers ({', '.join(labels)}), found {value!r}.")
        return values
    for name, label, number in pairs:
        if label not in labels:
            raise SpecError(f"truth: {name!r} names no term. Expected one of {', '.join(labels)}.")
        new[labels.index(label)] = _number(name, number)
    return new


def _correlation(level: LevelTruth, key: str, value: TruthValue) -> Floats:
    k = len(level.terms)
    corr = _array(key, value)
    if corr.ndim == 0:
        corr = np.full((k, k), float(corr))
        np.fill_diagonal(corr, 1.0)
    sound = corr.shape == (k, k) and np.allclose(corr, corr.T) and np.allclose(np.diag(corr), 1.0)
    if not sound or np.linalg.eigvalsh(corr).min() <= 0:
        raise SpecError(
            f"truth: {key!r} must be a correlation, or a positive definite {k} x {k} matrix of correlations for "
            f"{', '.join(level.terms)}, found {value!r}."
        )
    if not level.correlated and not np.allclose(corr, np.eye(k)):
        raise SpecError(f"truth: {key!r} is set, but the model leaves the terms of level {level.level!r} uncorrelated.")
    return corr

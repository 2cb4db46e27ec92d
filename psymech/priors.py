"""From weakly informative defaults and the user's overrides to one prior per parameter, and their description in
words.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psymech import names
from psymech.data.sessions import SessionData
from psymech.design import Design, make_design
from psymech.errors import SpecError
from psymech.joined import MEAN_SD, SPREAD_SD
from psymech.level_design import LevelDesign
from psymech.spec.model import ModelSpec
from psymech.spec.priors import (
    LKJ,
    Exponential,
    Gamma,
    HalfNormal,
    HalfStudentT,
    Normal,
    Prior,
    StudentT,
    SymmetricBeta,
    describe,
    lookup,
    variable_of,
)

FEW_THERAPISTS = 20
LATENT_SD = {"bernoulli": np.pi / np.sqrt(3), "ordinal": np.pi / np.sqrt(3)}
_PRIOR_DRAWS = 4000


@dataclass(frozen=True, slots=True)
class ChosenPriors:
    """One prior for every parameter of a design.

    `beta` follows the design's terms. The prior of an intercept belongs to the expected outcome at the average of the
    other columns (``center``), not at zero: it means the same thing however the predictors are coded.
    """

    beta: tuple[Normal | StudentT, ...]
    center: NDArray[np.float64]
    sd: Mapping[str, tuple[Prior, ...]]
    corr: Mapping[str, LKJ]
    sigma: tuple[Prior, ...]
    phi: SymmetricBeta | None
    nu: Gamma | None
    cutpoints: Normal | None
    residual_corr: LKJ | None = None
    sd_log_sigma: Prior | None = None
    corr_log_sigma: SymmetricBeta | None = None
    loading: tuple[Normal | StudentT, ...] = ()


def choose_priors(spec: ModelSpec, design: Design) -> ChosenPriors:
    """Return the default of every parameter, or the user's prior where one was given.

    Defaults for a Gaussian outcome with standard deviation s and columns with standard deviation s_x:
    intercept Normal(mean, 2.5 s); slopes Normal(0, 2.5 s / s_x); sigma and the patient intercept SD HalfNormal(s),
    the therapist and clinic intercept SD HalfNormal(s / 2); slope SDs HalfNormal(s / (2 s_x)) for patients and half
    of that above them; correlations LKJ(2). On the logit scale s = 1.5 for the SDs and 1 for the fixed effects. The SD
    over therapists of log sigma HalfNormal(0.5); its correlation with their effects is zero unless a prior is given.
    """
    _refuse_unknown(spec, design)
    logit = design.family in LATENT_SD
    s_fixed, s_random = (
        (np.ones(len(design.responses)), np.full(len(design.responses), 1.5)) if logit else _spread(design)
    )
    center = np.zeros(len(design.terms))
    beta: list[Normal | StudentT] = []
    for j, (label, term) in enumerate(zip(design.terms, design.term_specs, strict=True)):
        r = int(design.term_response[j])
        values = design.X[design.response == r, j]
        if term.role == "intercept":
            mean = 0.0 if logit else float(design.y[design.response == r].mean())
            default = Normal(mean, float(2.5 * s_fixed[r]))
        else:
            center[j] = values.mean()
            default = Normal(0.0, float(2.5 * s_fixed[r] / values.std()))
        chosen = lookup(spec.priors, names.BETA, label) or default
        assert isinstance(chosen, Normal | StudentT)
        beta.append(chosen)
    sd = {level.level: _sd_priors(spec, design, level, s_random) for level in design.levels}
    corr = {
        level.level: _lkj(lookup(spec.priors, names.corr(level.level))) for level in design.levels if level.correlated
    }
    sigma = (
        ()
        if logit
        else tuple(
            _pick(spec, names.SIGMA, label, HalfNormal(float(s)))
            for label, s in zip(design.sd_labels, np.broadcast_to(s_fixed, len(design.sd_labels)), strict=True)
        )
    )
    phi = lookup(spec.priors, names.PHI) or SymmetricBeta(2.0)
    nu = lookup(spec.priors, names.NU) or Gamma(2.0, 0.1)
    cutpoints = lookup(spec.priors, names.CUTPOINTS) or Normal(0.0, 3.0)
    with_effects = lookup(spec.priors, names.CORR_LOG_SIGMA)
    return ChosenPriors(
        beta=tuple(beta),
        center=center,
        sd=sd,
        corr=corr,
        sigma=sigma,
        phi=phi if design.residual == "ar1" and isinstance(phi, SymmetricBeta) else None,
        nu=nu if design.family == "student" and isinstance(nu, Gamma) else None,
        cutpoints=cutpoints if design.family == "ordinal" and isinstance(cutpoints, Normal) else None,
        residual_corr=_lkj(lookup(spec.priors, names.RESIDUAL_CORR)) if design.residual == "unstructured" else None,
        loading=_loading_priors(spec, design, sd, s_fixed),
        sd_log_sigma=(lookup(spec.priors, names.SD_LOG_SIGMA) or HalfNormal(0.5)) if design.sd_by_therapist else None,
        corr_log_sigma=with_effects if isinstance(with_effects, SymmetricBeta) else None,
    )


def _loading_priors(
    spec: ModelSpec, design: Design, sd: Mapping[str, tuple[Prior, ...]], spread: NDArray
) -> tuple[Normal | StudentT, ...]:
    """Normal(0, 2.5 s / s_u) with s_u the scale of the prior of the random term's SD."""
    if design.slope_predictors is None:
        return ()
    chosen = design.slope_predictors
    out: list[Normal | StudentT] = []
    for label, r, k in zip(chosen.labels, chosen.response, chosen.column, strict=True):
        own = sd["patient"][int(k)]
        scale = own.mean if isinstance(own, Exponential) else own.sd  # pyright: ignore[reportAttributeAccessIssue]
        prior = lookup(spec.priors, names.LOADING, label) or Normal(0.0, float(2.5 * spread[r] / scale))
        assert isinstance(prior, Normal | StudentT)
        out.append(prior)
    return tuple(out)


def uncentring(design: Design, priors: ChosenPriors) -> NDArray[np.float64]:
    """Matrix from (intercept at the average of the other columns, slopes) to (intercept at zero, slopes)."""
    matrix = np.eye(len(design.terms))
    for j, term in enumerate(design.term_specs):
        if term.role == "intercept":
            matrix[j] -= np.where(design.term_response == design.term_response[j], priors.center, 0.0)
    return matrix


def _refuse_unknown(spec: ModelSpec, design: Design) -> None:
    entries: dict[str, set[str]] = {names.BETA: set(design.terms), names.SIGMA: set(design.sd_labels)}
    for level in design.levels:
        entries[names.sd(level.level)] = set(level.terms)
        entries[names.corr(level.level)] = set()
    entries |= {names.PHI: set(), names.NU: set(), names.CUTPOINTS: set(), names.RESIDUAL_CORR: set()}
    if design.sd_by_therapist:
        entries |= {names.SD_LOG_SIGMA: set(), names.CORR_LOG_SIGMA: set()}
    if design.slope_predictors is not None:
        entries[names.LOADING] = set(design.slope_predictors.labels)
    for key, _ in spec.priors:
        variable = variable_of(key)
        if variable not in entries:
            raise SpecError(f"priors: {key!r} belongs to a level that this model does not have.")
        if key != variable and key[len(variable) + 1 : -1] not in entries[variable]:
            known = ", ".join(sorted(entries[variable])) or "no entries"
            raise SpecError(f"priors: {key!r} names no parameter of this model; {variable} has: {known}.")


def _spread(design: Design) -> tuple[NDArray, NDArray]:
    s = np.array([design.y[design.response == r].std() for r in range(len(design.responses))])
    return s, s


def _sd_priors(spec: ModelSpec, design: Design, level: LevelDesign, spread: NDArray) -> tuple[Prior, ...]:
    above = 1.0 if level.level == "patient" else 0.5
    out = []
    for j, label in enumerate(level.terms):
        rows = level.Z[:, j] != 0
        r = int(design.response[np.argmax(rows)]) if len(design.responses) > 1 else 0
        values = level.Z[design.response == r, j]
        scale = spread[r] * above
        if values.std() > 0:
            scale = scale / (2 * values.std())
        out.append(_pick(spec, names.sd(level.level), label, HalfNormal(float(scale))))
    return tuple(out)


def _pick(spec: ModelSpec, variable: str, entry: str, default: Prior) -> Prior:
    return lookup(spec.priors, variable, entry) or default


def _lkj(prior: Prior | None) -> LKJ:
    return prior if isinstance(prior, LKJ) else LKJ(2.0)


def draw_scale(prior: Prior, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Draw standard deviations from a prior of a scale."""
    match prior:
        case HalfNormal(sd):
            return np.abs(rng.normal(0, sd, size))
        case HalfStudentT(nu, sd):
            return np.abs(rng.standard_t(nu, size) * sd)
        case Exponential(mean):
            return rng.exponential(mean, size)
        case _:
            raise SpecError(f"{prior!r} is no prior of a standard deviation.")


@dataclass(frozen=True, slots=True)
class PriorDescription:
    """The priors of a model as a table, and what they say about the shares of variance.

    Attributes
    ----------
    table : one row a parameter: parameter, prior, low and high (central 90% of the prior), unit.
    shares : one row a level: median and central 90% of the prior share of outcome variance of one session (of one value
        of a response that has one a unit); with several responses, one row a response and level.
    notes : sentences that should stand beside any result.
    """

    table: pd.DataFrame
    shares: pd.DataFrame
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            self.table.to_string(index=False),
            "",
            "Prior shares of variance (one session of the average patient):",
        ]
        parts += [self.shares.to_string(index=False), "", *self.notes]
        return "\n".join(parts)


def describe_priors(spec: ModelSpec, data: SessionData, *, seed: int = 0) -> PriorDescription:
    """Show every prior in outcome units, and the shares of variance that the priors imply before the data are seen.

    Parameters
    ----------
    spec, data
        Model and table.
    seed
        Seed of the draws behind the intervals.

    Returns
    -------
    PriorDescription
        Prints as a table.

    Examples
    --------
    >>> import psymech as psm
    >>> data = psm.load_example("process_study")
    >>> shown = psm.describe_priors(psm.growth("phq9"), data)
    >>> list(shown.shares["level"])
    ['patient', 'therapist', 'residual']
    """
    design = make_design(spec, data)
    chosen = choose_priors(spec, design)
    rng = np.random.default_rng(seed)
    logit = design.family in LATENT_SD
    unit = "logit" if logit else "outcome units"
    rows: list[dict[str, object]] = []

    def add(parameter: str, prior: Prior, draws: NDArray | None, unit: str) -> None:
        low, high = (np.nan, np.nan) if draws is None else np.quantile(draws, [0.05, 0.95])
        rows.append({"parameter": parameter, "prior": describe(prior), "low": low, "high": high, "unit": unit})

    pooled = () if design.pooled is None else design.pooled.term.tolist()
    for j, (label, prior, term) in enumerate(zip(design.terms, chosen.beta, design.term_specs, strict=True)):
        if j in pooled:
            continue
        t = rng.standard_normal(_PRIOR_DRAWS) if isinstance(prior, Normal) else rng.standard_t(prior.nu, _PRIOR_DRAWS)
        where = f"{unit}, at the average of the other columns" if term.role == "intercept" else f"{unit} per unit"
        add(f"beta[{label}]", prior, prior.mean + prior.sd * t, where)
    if design.pooled is not None:
        per_sd = "SD of the outcome per SD of the ingredient"
        for label in design.pooled.ingredients:
            mean = Normal(0.0, MEAN_SD)
            add(f"{names.POOLED_MEAN}[{label}]", mean, MEAN_SD * rng.standard_normal(_PRIOR_DRAWS), per_sd)
        spread_prior = HalfNormal(SPREAD_SD)
        add(names.POOLED_SD, spread_prior, draw_scale(spread_prior, rng, _PRIOR_DRAWS), per_sd)
    if design.slope_predictors is not None:
        for label, prior in zip(design.slope_predictors.labels, chosen.loading, strict=True):
            t = (
                rng.standard_normal(_PRIOR_DRAWS)
                if isinstance(prior, Normal)
                else rng.standard_t(prior.nu, _PRIOR_DRAWS)
            )
            add(f"{names.LOADING}[{label}]", prior, prior.mean + prior.sd * t, "outcome units per unit of the slope")
    scales: dict[str, list[NDArray]] = {}
    for level in design.levels:
        draws = [draw_scale(p, rng, _PRIOR_DRAWS) for p in chosen.sd[level.level]]
        for label, prior, d in zip(level.terms, chosen.sd[level.level], draws, strict=True):
            add(f"sd_{level.level}[{label}]", prior, d, unit)
        scales[level.level] = draws
        if level.level in chosen.corr:
            add(f"corr_{level.level}", chosen.corr[level.level], None, "correlation")
    residual = [np.full(_PRIOR_DRAWS, LATENT_SD[design.family])] * len(design.sd_labels) if logit else []
    if not logit:
        residual = [draw_scale(p, rng, _PRIOR_DRAWS) for p in chosen.sigma]
        for label, prior, d in zip(design.sd_labels, chosen.sigma, residual, strict=True):
            add("sigma" if len(design.sd_labels) == 1 else f"sigma[{label}]", prior, d, unit)
    if chosen.sd_log_sigma is not None:
        spread = draw_scale(chosen.sd_log_sigma, rng, _PRIOR_DRAWS)
        add(names.SD_LOG_SIGMA, chosen.sd_log_sigma, spread, "log")
        residual = [d * np.exp(spread**2) for d in residual]  # d^2 exp(2 spread^2), the mean over therapists
    if chosen.corr_log_sigma is not None:
        a = chosen.corr_log_sigma.a
        add(names.CORR_LOG_SIGMA, chosen.corr_log_sigma, 2 * rng.beta(a, a, _PRIOR_DRAWS) - 1, "correlation")
    if chosen.phi is not None:
        add("phi", chosen.phi, 2 * rng.beta(chosen.phi.a, chosen.phi.a, _PRIOR_DRAWS) - 1, "autocorrelation")
    if chosen.nu is not None:
        nu = rng.gamma(chosen.nu.shape, 1 / chosen.nu.rate, _PRIOR_DRAWS)
        add("nu", chosen.nu, nu, "degrees of freedom")
        tails = np.sqrt(np.divide(nu, nu - 2, out=np.full_like(nu, np.nan), where=nu > 2))  # no variance below
        residual = [d * tails for d in residual]
    if chosen.cutpoints is not None:
        add("cutpoints", chosen.cutpoints, None, "logit, before ordering")
    shares = pd.DataFrame([row for r in range(len(design.responses)) for row in _shares(design, r, scales, residual)])
    return PriorDescription(pd.DataFrame(rows), shares, prior_notes(design))


def _shares(
    design: Design, response: int, scales: Mapping[str, list[NDArray]], residual: list[NDArray]
) -> list[dict[str, object]]:
    """Prior shares of a response's variance by level, averaged over its rows.

    Correlations have prior mean zero, so they drop out of the expected variance over the rows.
    """
    rows = design.response == response
    variances: dict[str, NDArray] = {}
    for level in design.levels:
        weight = 1.0 if level.members is None else (level.members.weight[rows] ** 2).sum(axis=1)
        squares = (level.Z[rows] ** 2 * np.reshape(weight, (-1, 1))).mean(axis=0)
        if squares.any():
            variances[level.level] = np.sum(
                [d**2 * square for d, square in zip(scales[level.level], squares, strict=True)], axis=0
            )
    of_rows = np.bincount(design.sd_code[rows], minlength=len(residual)) / rows.sum()
    variances["residual"] = np.sum([d**2 * w for d, w in zip(residual, of_rows, strict=True)], axis=0)
    total = np.sum(list(variances.values()), axis=0)
    whose = {"response": design.responses[response]} if len(design.responses) > 1 else {}
    return [
        {
            **whose,
            "level": level,
            **dict(zip(("low", "median", "high"), np.nanquantile(v / total, [0.05, 0.5, 0.95]), strict=True)),
        }
        for level, v in variances.items()
    ]


def prior_notes(design: Design) -> tuple[str, ...]:
    """Say where a prior decides the answer: few therapists or clinics."""
    notes = []
    for level in design.levels:
        if level.level != "patient" and level.n_units < FEW_THERAPISTS:
            notes.append(
                f"There are only {level.n_units} {level.level}s: the prior on sd_{level.level} decides much of the "
                "answer about "
                f"{level.level} differences. Repeat the fit with half and twice its scale and report what changes."
            )
    return tuple(notes)

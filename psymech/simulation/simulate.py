"""simulate(): a table from a specification, with the true value of everything that a fit estimates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from psymech.arguments import checked_seed, instance, mapping
from psymech.columns import column_source, evaluate_factor
from psymech.data.nesting import PatientIds
from psymech.data.sessions import SessionData
from psymech.design import make_design
from psymech.errors import SpecError
from psymech.names import INTERCEPT, LEVELS, TIME, Level
from psymech.simulation.outcome import draw_outcome
from psymech.simulation.predictors import Home, Predictor, chosen_predictors, draw_predictor
from psymech.simulation.sizes import Sizes, schedule
from psymech.simulation.truth import Parameters, TruthKeys, default_parameters, with_truth
from psymech.simulation.values import true_values
from psymech.spec.model import ModelSpec, RandomBlock, Term

Floats = NDArray[np.float64]
RESERVED = ("clinic", "therapist", "patient", "session", TIME)
OWN_LAG_SPREAD = (
    10.0  # stands for the SD of the outcome's lag, so that a patient's carry-over varies little and stays below one
)
MISSING_SLOPE = 0.5  # log odds of a missing outcome per SD of the outcome before


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A simulated study.

    Attributes
    ----------
    frame : DataFrame
        One row a session: ids, outcome, predictors that vary over sessions.
    patients, therapists : DataFrame or None
        Predictors that belong to a patient or a therapist; None where the model has none.
    truth : Dataset
        Every parameter under its name in a fitted tree (``beta(term)``, ``sd_patient(patient_term)``,
        ``u_therapist(therapist, therapist_term)``, ``sigma``, ...), and the true values of estimands:
        ``variance(level)`` and ``variance_partition(level)`` as :func:`psymech.variance_partition` defines them per
        session, averaged over the rows that a fit uses; ``rank_<level>``, 1 for the lowest effect;
        ``expected(session)``, the linear predictor of each row of `frame` (random effects included, AR(1) residuals
        not).
    spec : ModelSpec
    """

    frame: pd.DataFrame
    patients: pd.DataFrame | None
    therapists: pd.DataFrame | None
    truth: xr.Dataset
    spec: ModelSpec

    def data(self) -> SessionData:
        """The study as checked data."""
        return _as_data(self.frame, self.patients, self.therapists)


def simulate(
    spec: ModelSpec,
    *,
    sizes: Sizes | None = None,
    truth: TruthKeys | None = None,
    predictors: Mapping[str, Predictor] | None = None,
    seed: int,
) -> Simulation:
    r"""Simulate a study from a specification.

    Predictors are drawn first, then the outcome from the model itself,

    .. math:: \eta_{tik} = x_{tik}'\beta + z_{tik}'u_{ik} + z_{tik}'v_k,

    with normal, Student or AR(1) residuals, or as a Bernoulli or cumulative-logit response of :math:`\eta`. An
    autoregressive outcome is drawn session by session. Where a lagged column has no predecessor (first sessions, after
    a gap) its effect counts as zero, and an autoregressive outcome starts at its patient's equilibrium
    :math:`\eta/(1-\phi)`.

    Parameters
    ----------
    spec
        What :func:`psymech.growth` or :func:`psymech.process` returned.
    sizes
        How many units and how ragged; 20 therapists x 8 patients x 12 sessions unless told otherwise.
    truth
        True values by name: ``{"sigma": 2, "beta[alliance.within]": -0.5, "sd_therapist": {"Intercept": 1},
        "corr_patient": 0.3}``. Defaults: residual SD 2 (the logistic distribution's on the logit scale), intercept 10
        (0), slopes -0.25 residual SDs per SD of their column, products 0.1; SDs of patients' intercepts 1 residual SD
        and slopes 0.3 (therapists 0.4 and 0.15, clinics 0.25 and 0.1); correlations 0.2; carry-over 0.3; phi 0.4; nu
        5; cutpoints -2, -0.7, 0.7, 2.
    predictors
        How predictors vary: ``{"alliance": Predictor(mean=3.5, within=0.4, patient=0.4, therapist=0.2)}``. Default:
        mean 0, SDs 1 within patients, 0.7 between patients, 0.4 between therapists; covariates and moderators vary
        between patients only.
    seed
        The same seed gives the same study. Ids, predictors, random effects, residuals and missingness have their own
        streams: another `truth` leaves the predictors as they are.

    Returns
    -------
    Simulation

    Raises
    ------
    SpecError
        A name that the model does not have, an impossible value, or a model that cannot be simulated.

    Examples
    --------
    >>> import psymech as psm
    >>> from psymech.simulation import Sizes, simulate
    >>> spec = psm.growth("phq9", random={"patient": ["time"]})
    >>> study = simulate(spec, sizes=Sizes(therapists=5, patients=4, sessions=6), truth={"sigma": 1.5}, seed=1)
    >>> study.data()
    SessionData(120 sessions, 20 patients, 5 therapists; columns: phq9)
    >>> float(study.truth["sigma"])
    1.5
    """
    instance(spec, ModelSpec, "spec", "a model, such as psymech.growth('phq9')")
    if sizes is not None:
        instance(sizes, Sizes, "sizes", "psymech.Sizes(...)")
    if truth is not None:
        mapping(truth, "truth", "{'sigma': 2.0}")
    checked_seed(seed)
    sizes = sizes or Sizes()
    _refuse(spec, sizes)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]
    frame = schedule(sizes, streams[0])
    frame, patients, therapists = _with_predictors(frame, spec, predictors, streams[1])
    frame[spec.outcome] = 0.0
    data = _as_data(frame, patients, therapists)

    terms = tuple(t for t in spec.responses[0].terms if _exists(t, data))
    X = _columns(spec, terms, data)
    labels = tuple(t.label for t in terms)
    blocks = _blocks(spec, data, labels)
    own = next((t for t in terms if t.role == "autoregressive"), None)
    spread = _spread(X, labels, None if own is None else own.label)
    parameters = with_truth(default_parameters(spec, [t.role for t in terms], labels, blocks, spread), truth)
    effects = _effects(parameters, data, streams[2])
    expected, outcome = draw_outcome(
        spec, parameters, X=X, effects=effects, data=data, carry_over=None if own is None else own.label, rng=streams[3]
    )
    outcome = _missing(outcome, data.codes["patient"], sizes.missing, streams[4])
    frame = frame.assign(**{spec.outcome: outcome})
    complete = _as_data(frame, patients, therapists)
    values = true_values(spec, parameters, effects, make_design(spec, complete), data, expected)
    return Simulation(frame=frame, patients=patients, therapists=therapists, truth=values, spec=spec)


def _refuse(spec: ModelSpec, sizes: Sizes) -> None:
    if len(spec.responses) != 1:
        raise SpecError("simulate() draws one outcome; this model has several.")
    if sizes.switching:
        _refuse_switching(spec, sizes)
    if spec.residual_by is not None:
        raise SpecError(f"simulate() draws residuals of one SD, found residual_by={spec.residual_by!r}.")
    for block in spec.random:
        if getattr(sizes, f"{block.level}s") is None:
            raise SpecError(f"The model lets terms vary over level {block.level!r}, but sizes.{block.level}s is None.")
    taken = {f.column for t in spec.responses[0].terms for f in t.factors if f.basis is None} | {spec.outcome}
    reserved = sorted(taken & set(RESERVED))
    if reserved:
        raise SpecError(
            f"The model names the column {reserved[0]!r}, which simulate() needs for ids and time. Rename it."
        )
    for term in spec.responses[0].terms:
        lags_itself = any(f.column == spec.outcome for f in term.factors)
        if lags_itself and (term.role != "autoregressive" or term.factors[0].lag != 1):
            raise SpecError(
                f"simulate() knows the outcome's own lag as autoregressive=True only, found {term.label!r}."
            )


def _refuse_switching(spec: ModelSpec, sizes: Sizes) -> None:
    """What goes on from session to session is drawn along rows, which a change of therapist takes apart."""
    carried = any(term.role == "autoregressive" for term in spec.responses[0].terms)
    if spec.residual == "ar1" or carried or sizes.missing:
        what = "residual='ar1'" if spec.residual == "ar1" else "autoregressive=True" if carried else "Sizes.missing"
        raise SpecError(f"simulate() does not draw {what} together with Sizes.switching. Leave one of them out.")


def _as_data(frame: pd.DataFrame, patients: pd.DataFrame | None, therapists: pd.DataFrame | None) -> SessionData:
    ids: dict[str, Any] = {level: level if level in frame.columns else None for level in ("therapist", "clinic")}
    columns = [*frame.columns, *(c for t in (patients, therapists) if t is not None for c in t.columns)]
    unbounded = {name: None for name in columns if name not in RESERVED}  # normal values know no questionnaire's range
    changed = "therapist" in frame.columns and int(frame.groupby("patient")["therapist"].nunique().to_numpy().max()) > 1
    kind: PatientIds = "crossed" if changed else "unique"
    return SessionData.from_frame(
        frame, patients=patients, therapists=therapists, ranges=unbounded, patient_ids=kind, **ids
    )


def _with_predictors(
    frame: pd.DataFrame, spec: ModelSpec, given: Mapping[str, Predictor] | None, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None]:
    bare = _as_data(frame, None, None)
    chosen = chosen_predictors(spec, given)
    frame = frame.copy()
    tables: dict[Home, dict[str, NDArray]] = {"patient": {}, "therapist": {}}
    for name, stream in zip(chosen, rng.spawn(len(chosen)), strict=True):
        predictor = chosen[name]
        if predictor.home == "therapist" and "therapist" not in bare.levels:
            raise SpecError(f"predictors: {name!r} varies between therapists only, but sizes.therapists is None.")
        values = draw_predictor(predictor, bare, stream)
        if predictor.home == "session":
            frame[name] = values
        else:
            first = np.unique(bare.codes[predictor.home], return_index=True)[1]
            tables[predictor.home][name] = values[first]
    patients = pd.DataFrame({"patient": bare.ids["patient"], **tables["patient"]}) if tables["patient"] else None
    therapists = (
        pd.DataFrame({"therapist": bare.ids["therapist"], **tables["therapist"]}) if tables["therapist"] else None
    )
    return frame, patients, therapists


def _exists(term: Term, data: SessionData) -> bool:
    return "therapist" in data.levels or all(factor.part != "therapist" for factor in term.factors)


def _columns(spec: ModelSpec, terms: tuple[Term, ...], data: SessionData) -> Floats:
    """Fixed-effect columns of every session (n, p); zero where a lag has no predecessor."""
    source = column_source(spec, data)
    one = np.ones(data.n_sessions)
    columns = [np.prod([evaluate_factor(source, f) for f in t.factors] or [one], axis=0) for t in terms]
    return np.nan_to_num(np.column_stack(columns)) if columns else np.zeros((data.n_sessions, 0))


def _blocks(spec: ModelSpec, data: SessionData, labels: tuple[str, ...]) -> tuple[RandomBlock, ...]:
    """Random blocks of every level that the model uses; a level that is not named gets its intercept."""
    blocks = []
    for level in LEVELS:
        if level in data.levels and level not in spec.without:
            block = spec.block(level) or RandomBlock(level, (INTERCEPT,))
            kept = tuple(t for t in block.terms if t in labels or t == INTERCEPT)
            blocks.append(replace(block, terms=kept))
    return tuple(blocks)


def _spread(X: Floats, labels: tuple[str, ...], own: str | None) -> dict[str, float]:
    spread = {label: float(column.std()) or 1.0 for label, column in zip(labels, X.T, strict=True)}
    if own is not None:
        spread[own] = OWN_LAG_SPREAD
    return spread


def _effects(parameters: Parameters, data: SessionData, rng: np.random.Generator) -> dict[Level, Floats]:
    """Random effects of each level, shape (n_units, n_terms)."""
    streams = dict(zip(LEVELS, rng.spawn(len(LEVELS)), strict=True))
    return {
        level.level: streams[level.level].normal(size=(data.n_units(level.level), len(level.terms))) @ level.factor.T
        for level in parameters.levels
    }


def _missing(outcome: Floats, patient: NDArray[np.int64], share: float, rng: np.random.Generator) -> Floats:
    """Blank a share of the outcomes at random given the patient's outcome before; never a first session."""
    later = np.concatenate([[False], patient[1:] == patient[:-1]])
    draw = rng.random(outcome.size)
    if share == 0 or not later.any() or outcome.std() == 0:
        return outcome
    before = np.concatenate([[0.0], outcome[:-1]])[later]
    weight = np.exp(MISSING_SLOPE * (before - outcome.mean()) / outcome.std())
    chance = np.minimum(share * outcome.size / later.sum() * weight / weight.mean(), 0.95)
    out = outcome.copy()
    blank = np.zeros(outcome.size, dtype=bool)
    blank[later] = draw[later] < chance
    out[blank] = np.nan
    return out

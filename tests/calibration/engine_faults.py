"""Faults seeded into fits of the library's own engine: priors that differ, rows left out, draws misread."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr

import psymech as psm
from psymech import names
from psymech.calibration.fitting import Fit
from psymech.graph.build import BuiltModel
from psymech.spec.priors import LKJ, Exponential, HalfNormal, Normal, Prior

SAMPLING = {"draws": 600, "tune": 400, "chains": 2}


def sampled(built: BuiltModel, seed: int) -> xr.DataTree:
    return psm.sample(built, seed=seed, cores=1, progressbar=False, **SAMPLING)


def told(change: Callable[[BuiltModel], BuiltModel]) -> Fit:
    return lambda built, seed: sampled(change(built), seed)


def misread(twist: Callable[[xr.Dataset], xr.Dataset]) -> Fit:
    def fit(built: BuiltModel, seed: int) -> xr.DataTree:
        tree = sampled(built, seed)
        tree["posterior"] = xr.DataTree(twist(tree["posterior"].to_dataset()))
        return tree

    return fit


def with_sd_priors(built: BuiltModel, level: str, change: Callable[[Prior], Prior]) -> BuiltModel:
    sd = {**built.priors.sd, level: tuple(change(p) for p in built.priors.sd[level])}
    return replace(built, priors=replace(built.priors, sd=sd))


def scale_of(prior: Prior) -> float:
    assert isinstance(prior, HalfNormal)
    return prior.sd


def prior_of_therapist_sd_times_five(built: BuiltModel) -> BuiltModel:
    return with_sd_priors(built, "therapist", lambda p: HalfNormal(5 * scale_of(p)))


def prior_of_therapist_sd_a_third(built: BuiltModel) -> BuiltModel:
    return with_sd_priors(built, "therapist", lambda p: HalfNormal(scale_of(p) / 3))


def prior_of_patient_sd_exponential(built: BuiltModel) -> BuiltModel:
    return with_sd_priors(built, "patient", lambda p: Exponential(scale_of(p) / 4))


def prior_of_correlation_too_narrow(built: BuiltModel) -> BuiltModel:
    return replace(built, priors=replace(built.priors, corr=dict.fromkeys(built.priors.corr, LKJ(60.0))))


def prior_of_intercept_at_zero_time(built: BuiltModel) -> BuiltModel:
    """The prior about the average row taken for one about time zero, with little spread."""
    first = built.priors.beta[0]
    moved = (Normal(first.mean * 0.5, first.sd / 8), *built.priors.beta[1:])
    return replace(built, priors=replace(built.priors, beta=moved))


def later_sessions_left_out(built: BuiltModel) -> BuiltModel:
    d = built.design
    keep = np.flatnonzero(d.session <= 3)
    levels = tuple(replace(level, code=level.code[keep], Z=level.Z[keep]) for level in d.levels)
    rows = {name: getattr(d, name)[keep] for name in ("y", "X", "response", "row", "session", "time", "gap")}
    design = replace(d, levels=levels, previous=np.full(keep.size, -1), **rows)
    return replace(built, design=design)


def patients_of_the_next_therapist(built: BuiltModel) -> BuiltModel:
    d = built.design
    patient, therapist = d.levels
    n = therapist.n_units
    parent = (patient.parent + 1) % n if patient.parent is not None else None
    levels = (replace(patient, parent=parent), replace(therapist, code=(therapist.code + 1) % n))
    return replace(built, design=replace(d, levels=levels))


def variance_read_as_sd(posterior: xr.Dataset) -> xr.Dataset:
    return posterior.assign({names.sd("therapist"): posterior[names.sd("therapist")] ** 2})


def residual_sd_of_the_log(posterior: xr.Dataset) -> xr.Dataset:
    return posterior.assign({names.SIGMA: posterior[names.SIGMA] * 1.1})


def draws_of_effects_not_paired(posterior: xr.Dataset) -> xr.Dataset:
    """Random effects of other draws than the parameters beside them."""
    name = names.effect("patient")
    return posterior.assign({name: posterior[name].roll(draw=7)})


FAULTS: dict[str, Fit] = {
    **{
        f.__name__: told(f)
        for f in (
            prior_of_therapist_sd_times_five,
            prior_of_therapist_sd_a_third,
            prior_of_patient_sd_exponential,
            prior_of_correlation_too_narrow,
            prior_of_intercept_at_zero_time,
            later_sessions_left_out,
            patients_of_the_next_therapist,
        )
    },
    **{f.__name__: misread(f) for f in (variance_read_as_sd, residual_sd_of_the_log, draws_of_effects_not_paired)},
}


def calibrated(fit: Fit, *, simulations: int, workers: int = 1) -> psm.CalibrationReport:
    model = psm.growth("y", random={"patient": ["time"]})
    sizes = psm.Sizes(therapists=8, patients=4, sessions=5)
    data = psm.simulate(model, sizes=sizes, seed=1).data()
    result = psm.calibrate(
        model,
        data,
        simulations=simulations,
        seed=1,
        fit=fit,
        workers=workers,
        progressbar=False,
        thinned=99,
        **SAMPLING,
    )
    return psm.check_calibration(result)

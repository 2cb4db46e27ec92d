"""Calls with wrong arguments: each is refused in our own words, before anything compiles."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.inference import sample as sampling
from tests.data.test_hard_tables import B

SPEC = psm.growth("phq9")
FIT: dict[str, tuple[dict[str, Any], str]] = {
    "draws true": ({"draws": True}, "draws: expected a whole number above zero, found True"),
    "tune none": ({"tune": None}, "tune: expected a whole number"),
    "chains zero": ({"chains": 0}, "chains: expected a whole number"),
    "seed below zero": ({"seed": -1}, "seed: expected a whole number from 0 on, found -1"),
    "seed with decimals": ({"seed": 1.5}, "seed: expected a whole number"),
    "seed beyond 64 bits": ({"seed": 2**64}, r"below 2\*\*64"),
    "seed a generator": ({"seed": np.random.default_rng(1)}, "seed: expected a whole number"),
    "no cores": ({"cores": 0}, "cores: expected a whole number above zero"),
    "acceptance as per cent": ({"target_accept": 95}, "between 0 and 1, found 95. Did you mean 0.95"),
    "depth beyond reason": ({"max_treedepth": 1000}, "max_treedepth: expected at most 20"),
    "a level in place of a list": (
        {"effects": "therapist"},
        r"effects: expected a list of levels such as \['therapist'\]",
    ),
}
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "an outcome that is none": (lambda: psm.growth(None), "outcome: expected the name of one column"),  # pyright: ignore
    "two outcomes": (lambda: psm.process(["a", "b"]), "outcome: expected the name of one column"),  # pyright: ignore
    "covariates none": (lambda: psm.growth("y", covariates=None), "covariates: expected column names"),  # pyright: ignore
    "covariates in a set": (lambda: psm.growth("y", covariates={"a", "b"}), "in an order, found a set"),
    "random as a list": (lambda: psm.growth("y", random=["time"]), "random: expected a mapping"),  # pyright: ignore
    "knots as text": (lambda: psm.growth("y", shape="piecewise", knots=["a"]), "knots: expected a number"),  # pyright: ignore
    "a knot that is no number": (
        lambda: psm.growth("y", shape="piecewise", knots=[float("nan")]),
        "knots: expected a number, found nan",
    ),
    "half a degree of freedom": (
        lambda: psm.growth("y", shape="spline", df=3.5),  # pyright: ignore
        "a whole number df >= 2",
    ),
    "correlated as text": (lambda: psm.growth("y", correlated="no"), "correlated: expected a mapping"),  # pyright: ignore
    "priors as a list": (lambda: psm.growth("y", priors=[psm.Normal()]), "priors: expected a mapping"),  # pyright: ignore
    "a prior's mean as text": (lambda: psm.Normal(mean="0"), "Normal.mean must be a finite number"),  # pyright: ignore
    "a lag with decimals": (lambda: psm.process("y", techniques=["a"], lag=1.0), "lag: expected a whole"),  # pyright: ignore
    "an interaction of numbers": (
        lambda: psm.process("y", techniques=["a"], interactions=[(1, 2)]),  # pyright: ignore
        "interactions: expected pairs",
    ),
    "autoregressive as text": (lambda: psm.process("y", autoregressive="no"), "expected True or False"),  # pyright: ignore
    "groups by number": (lambda: psm.growth("y", residual_by=3), "residual_by=3 names no column"),  # pyright: ignore
    "moderators as a list": (
        lambda: psm.mediation("y", treatment="t", mediators="m", moderators=["q"]),  # pyright: ignore
        "moderators: expected a mapping",
    ),
    "a process by name": (
        lambda: psm.outcomes("y", techniques=["a"], process="growth"),  # pyright: ignore
        "process: expected a model",
    ),
    "model and data the other way round": (lambda: psm.build_model(DATA, SPEC), "spec: expected a model.*SessionData"),  # pyright: ignore
    "a table that was not checked": (lambda: psm.build_model(SPEC, B), "data: expected checked data.*DataFrame"),  # pyright: ignore
    "a check of a path": (lambda: psm.check_design("a.csv"), "data: expected checked data.*str"),  # pyright: ignore
    "gains in a table": (lambda: psm.sudden_gains(B, "phq9", cutoff=7), "data: expected checked data"),  # pyright: ignore
    "a column by number": (lambda: DATA.values(3), "Columns are named by text, but got 3"),  # pyright: ignore
    "scores as words": (lambda: psm.reliable_change(["a"], ["b"], sd=7, reliability=0.8), "pre: expected numbers"),  # pyright: ignore
    "an infinite score": (
        lambda: psm.reliable_change([np.inf], [1.0], sd=7, reliability=0.8),
        "pre: expected finite scores, found 1 infinite",
    ),
    "half a therapist": (lambda: psm.Sizes(therapists=2.5), "Sizes.therapists: expected 1 or more"),  # pyright: ignore
    "a simulation's seed": (lambda: psm.simulate(SPEC, seed=-1), "seed: expected a whole number from 0 on"),
    "a file's name for a fit": (lambda: psm.effects("fit.nc"), r"found str. Read the file first: psymech.load\(path\)"),  # pyright: ignore
    "nothing for a fit": (lambda: psm.check_sampling(None), "expected a fitted tree.*NoneType"),  # pyright: ignore
    "an empty fit": (lambda: psm.rank_therapists(xr.DataTree()), "group 'posterior', found no group"),
}
DATA = psm.SessionData.from_frame(B)


@pytest.mark.parametrize("name", list(CALLS))
def test_refused_in_words(name: str):
    call, words = CALLS[name]
    with pytest.raises(psm.PsymechError, match=words):
        call()


@pytest.mark.parametrize("name", list(FIT))
def test_options_of_sampling_are_refused_before_anything_compiles(name: str, monkeypatch: pytest.MonkeyPatch):
    def draws(*args: Any, **options: Any) -> None:
        raise AssertionError("something was to be drawn")

    monkeypatch.setattr(sampling, "_drawn", draws)
    options, words = FIT[name]
    with pytest.raises(psm.SpecError, match=words):
        psm.fit(SPEC, DATA, progressbar=False, **options)

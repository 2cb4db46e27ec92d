"""A tiny calibration run in closed form: ``python -m tests.calibration.runs FOLDER SECONDS`` can be killed."""

import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

import psymech as psm
from psymech.calibration.fitting import Fit
from psymech.graph.build import BuiltModel
from tests.calibration.conjugate import WITHOUT_THERAPISTS, exact, spec, table

SIMULATIONS = 30


def run(
    *,
    fit: Fit = exact,
    simulations: int = SIMULATIONS,
    seed: int = 5,
    workers: int | None = 1,
    client=None,
    store: str | Path | None = None,
) -> xr.DataTree:
    return psm.calibrate(
        spec(),
        table(therapists=False),
        simulations=simulations,
        seed=seed,
        engine="explicit",
        draws=19,
        chains=1,
        thinned=19,
        truth=WITHOUT_THERAPISTS,
        max_r_hat=np.inf,
        fit=fit,
        workers=workers,
        client=client,
        store=store,
        progressbar=False,
    )


def slowly(built: BuiltModel, seed: int) -> xr.DataTree:
    time.sleep(PAUSE)
    return exact(built, seed)


PAUSE = 0.0
slowly.__qualname__ = exact.__qualname__  # the same fit as far as the store is concerned

if __name__ == "__main__":
    PAUSE = float(sys.argv[2])
    run(fit=slowly, store=sys.argv[1])

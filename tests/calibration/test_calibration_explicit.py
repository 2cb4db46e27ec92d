"""The explicit graph with responses as data: the density of a graph made anew, and calibrated draws."""

from dataclasses import replace

import numpy as np
import pytest

import psymech as psm
from psymech.graph.build import BuiltModel, build_model
from psymech.graph.explicit import explicit_model
from psymech.inference.refits import OBSERVED, compile_refits, exchangeable_model


def built(**options: object) -> tuple[BuiltModel, psm.SessionData]:
    spec = psm.growth("y", random={"patient": []})
    data = psm.simulate(spec, sizes=psm.Sizes(therapists=6, patients=3, sessions=4), seed=1).data()
    return build_model(spec, data, "explicit"), data


def test_the_density_follows_the_response():
    import pymc as pm

    one, _ = built()
    other = replace(one.design, y=one.design.y[::-1] * 2.0)
    model, fresh = exchangeable_model(one), explicit_model(other, one.priors)
    point = fresh.initial_point(random_seed=1)
    point = {
        name: value + 0.1 * np.arange(value.size).reshape(value.shape) / value.size for name, value in point.items()
    }
    before = float(model.compile_logp(mode="FAST_COMPILE")(point))
    pm.set_data({OBSERVED: other.y}, model=model)
    after = float(model.compile_logp(mode="FAST_COMPILE")(point))
    assert after == pytest.approx(float(fresh.compile_logp(mode="FAST_COMPILE")(point)), rel=1e-12)
    assert before != pytest.approx(after)


@pytest.mark.slow
def test_twenty_simulations_on_the_explicit_engine():
    one, data = built()
    result = psm.calibrate(one.spec, data, simulations=20, seed=1, engine="explicit", workers=2, progressbar=False)
    assert result.attrs["engine"] == "explicit"
    report = psm.check_calibration(result)
    assert (report.table["adjusted"] >= report.alpha).all(), str(report)


@pytest.mark.slow
def test_another_design_is_refused():
    one, _ = built()
    refits = compile_refits(one)
    fewer = replace(one, design=replace(one.design, row=one.design.row + 1))
    with pytest.raises(psm.SpecError, match="the same rows, terms, units and priors"):
        refits.sample(fewer, None)  # pyright: ignore[reportArgumentType]

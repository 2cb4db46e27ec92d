"""Mediators missing where an outcome refers to them: the density is that of the completed table, and MAR is handled."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from numpy.typing import NDArray

import psymech as psm
from psymech import names
from psymech.data.sessions import SessionData
from psymech.design import Design, make_design
from psymech.errors import DataError, SpecError
from psymech.graph.build import build_model
from psymech.graph.explicit import explicit_model
from psymech.graph.imputed import imputed_model
from psymech.inference.storage import without_data
from psymech.posterior.mediation_sensitivity import _error_of_mean
from psymech.priors import choose_priors
from psymech.simulation.mediation import simulate_mediation
from tests.oracles import central_differences
from tests.posterior.mediation_trees import chosen_tree

Floats = NDArray[np.float64]
Point = dict[str, NDArray]
EXACT = 1e-9  # relative; sums of a few hundred terms in another order
MODE = "FAST_COMPILE"


def frame_of(seed: int = 2) -> pd.DataFrame:
    """Four therapists, ragged, a gap; two mediators, a moderator, one score a patient."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"T{k}", f"P{k}{i}", t)
        for k in range(4)
        for i in range(int(rng.integers(2, 4)))
        for t in range(1, int(rng.integers(4, 7)))
    ]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"])
    frame.loc[frame["patient"] == "P00", "session"] += [0, 0, 1, 1, 1][: int((frame["patient"] == "P00").sum())]
    frame = frame.assign(**{name: 2 + rng.normal(size=len(frame)) for name in ("x", "m", "m2", "y")})
    for name in ("w", "post"):
        frame[name] = frame["patient"].map({p: rng.normal() for p in frame["patient"].unique()})
    return frame


def holed() -> SessionData:
    frame = frame_of()
    frame.loc[[0, 5, 8, 9, 17], "m"] = np.nan  # 8 lacks the outcome too
    frame.loc[[5, 12], "m2"] = np.nan  # 5 lacks both mediators
    frame.loc[[2, 8], "y"] = np.nan
    return SessionData.from_frame(frame)


BOTH = {"patient": ("a", "b"), "therapist": ("a",)}
SPECS = {
    "1-1-1": psm.mediation("y", treatment="x", mediators="m", time=None, random=BOTH),
    "lagged": psm.mediation("y", treatment="x", mediators="m", lag=1, random={"patient": ("b",)}),
    "in series": psm.mediation("y", treatment="x", mediators=("m", "m2"), serial=True, time=None, random=BOTH),
    "moderated": psm.mediation("y", treatment="x", mediators="m", moderators={"b": "w"}, time=None, random=BOTH),
    "as given": psm.mediation("y", treatment="x", mediators="m", decompose="none", time=None, random=BOTH),
    "two outcomes": psm.mediation(("y", "post"), treatment="x", mediators="m", time=None, random={"patient": ("a",)}),
}


def value_of(model: pm.Model, name: str, point: Point) -> Floats:
    graph = model.replace_rvs_by_values([model[name]])
    function = model.compile_fn(graph, inputs=model.value_vars, mode=MODE, on_unused_input="ignore")
    return np.asarray(function(point)[0])


def completed(data: SessionData, design: Design, values: Floats) -> SessionData:
    """The table with the imputed values written into it."""
    assert design.imputation is not None
    sessions = data.sessions.copy()
    start = 0
    for missing in design.imputation.missing:
        stop = start + missing.row.size
        assert sessions[missing.column].iloc[missing.row].isna().all()
        sessions.iloc[missing.row, sessions.columns.get_loc(missing.column)] = values[start:stop]  # pyright: ignore
        start = stop
    return SessionData.from_frame(sessions)


@pytest.mark.parametrize("name", SPECS)
def test_density_is_that_of_the_completed_table(name: str) -> None:
    spec, data = SPECS[name], holed()
    design = make_design(spec, data)
    priors = choose_priors(spec, design)
    model = imputed_model(design, priors)
    rng = np.random.default_rng(7)
    for _ in range(1):
        point = {key: value + 0.4 * rng.normal(size=np.shape(value)) for key, value in model.initial_point().items()}
        values = value_of(model, "imputed", point)
        whole = make_design(spec, completed(data, design, values))
        assert whole.imputation is None and whole.n_obs == design.n_obs + values.size
        same = explicit_model(whole, priors)
        without = {key: value for key, value in point.items() if key != "z_imputed"}
        wanted = float(same.compile_logp(mode=MODE)(without))
        # imputed = eta + sigma z: the density of z is that of the imputed value times sigma
        sigma = value_of(model, "sigma", point)
        assert design.imputation is not None
        wanted += sum(m.row.size * np.log(sigma[m.response]) for m in design.imputation.missing)
        assert float(model.compile_logp(mode=MODE)(point)) == pytest.approx(wanted, rel=EXACT)


def test_gradient() -> None:
    spec = SPECS["in series"]
    design = make_design(spec, holed())
    model = imputed_model(design, choose_priors(spec, design))
    rng = np.random.default_rng(8)
    point = {key: value + 0.3 * rng.normal(size=np.shape(value)) for key, value in model.initial_point().items()}
    gradient = model.compile_dlogp(mode=MODE)(point)
    found = central_differences(model, point, step=1e-5, mode=MODE)
    np.testing.assert_allclose(gradient, found, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


@pytest.mark.filterwarnings("ignore:.*only 4 therapists")
def test_what_is_imputed_and_what_is_said() -> None:
    data = holed()
    built = build_model(SPECS["1-1-1"], data)
    plan = built.design.imputation
    assert plan is not None
    # session 8 has neither mediator nor outcome: nothing refers to it, and it does not count in the means
    assert plan.missing[0].row.tolist() == [0, 5, 9, 17]
    assert np.isnan(plan.missing[0].values[8])
    assert (built.engine, built.reason) == ("explicit", "4 missing values of 'm' are parameters.")
    note = next(f for f in built.design.report.notes if f.code == "mediator-imputed")
    assert note.message.startswith(f"4 of {data.n_sessions - 1} values of 'm' are missing where an observed response")
    with pytest.raises(psm.NotCollapsibleError, match="4 missing values of 'm' are parameters"):
        build_model(SPECS["1-1-1"], data, engine="collapsed")
    serial = make_design(SPECS["in series"], data).imputation
    assert serial is not None
    assert [(m.column, m.row.tolist()) for m in serial.missing] == [("m", [0, 5, 8, 9, 17]), ("m2", [5, 12])]


def test_effects_are_read_and_columns_refused_by_name() -> None:
    tree = chosen_tree(SPECS["1-1-1"], holed())
    assert tree["posterior"]["imputed"].dims == ("chain", "draw", "missing")
    assert tree["constant_data"]["row_of_missing"].values.tolist() == [0, 5, 9, 17]
    psm.mediation_table(tree)
    shared = without_data(tree)
    assert "imputed" not in shared["posterior"] and "missing" not in shared["constant_data"].dims
    for refused in (psm.r2, psm.variance_partition):
        with pytest.raises(SpecError, match="those of y hold imputed values of a mediator"):
            refused(tree, response="y")
    # imputed sessions count in the patients' means, so that their errors are those of the completed table
    sigma = np.ones((2, 40))
    data = tree["constant_data"].dataset
    rows = data["response_of_obs"].values == 0
    sessions = np.bincount(data["patient_of_obs"].values[rows]) + np.bincount(
        data[names.PATIENT_OF_MISSING].values, minlength=tree["posterior"].sizes["patient"]
    )
    found = _error_of_mean(tree, "patient", "m", sigma)
    np.testing.assert_allclose(found, np.mean(1.0 / sessions), rtol=EXACT)


def test_missing_treatment_stays_refused() -> None:
    frame = frame_of()
    frame.loc[3, ["x", "m"]] = np.nan
    with pytest.raises(DataError, match="'x': 1 missing"):
        make_design(SPECS["1-1-1"], SessionData.from_frame(frame))


def test_a_mediator_with_its_own_last_value_stays_refused() -> None:
    spec = psm.mediation("y", treatment="x", mediators="m", autoregressive=("m",), time=None)
    with pytest.raises(DataError, match="'m': 4 missing"):
        make_design(spec, holed())


@pytest.mark.filterwarnings("ignore:.*only 4 therapists")
def test_missing_outcomes_leave_the_mediators_rows() -> None:
    frame = frame_of()
    frame.loc[[2, 8], "y"] = np.nan
    built = build_model(SPECS["1-1-1"], SessionData.from_frame(frame))
    assert built.engine == "collapsed" and built.design.imputation is None
    counts = np.bincount(built.design.response)
    assert counts.tolist() == [len(frame), len(frame) - 2]


@pytest.mark.slow
@pytest.mark.sampling
@pytest.mark.filterwarnings("ignore::psymech.SamplingWarning")  # short chains
@pytest.mark.filterwarnings("ignore:.*have only one session")
def test_mediators_missing_at_random_are_recovered_where_deletion_is_biased() -> None:
    """A mediator that is missing the more often the higher the outcome: a third of the sessions."""
    study = simulate_mediation(therapists=20, patients=8, sessions=8, seed=3)
    frame = study.data.sessions
    height = (frame["y"] - frame["y"].mean()) / frame["y"].std()
    lost = np.random.default_rng(1).random(len(frame)) < 1 / (1 + np.exp(1.2 - 2.5 * height))
    assert 0.3 < lost.mean() < 0.36
    tables = {
        "complete": frame,
        "mediator missing": frame.assign(m=frame["m"].where(~lost)),
        "outcome missing": frame.assign(y=frame["y"].where(frame["m"] < frame["m"].quantile(0.7))),
        "sessions deleted": frame[~lost],
    }
    spec = psm.mediation("y", treatment="x", mediators="m", time=None, random={"patient": ("a", "b"), "therapist": ()})
    within, slope = {}, {}
    for name, table in tables.items():
        tree = psm.fit(spec, SessionData.from_frame(table), draws=600, tune=600, chains=2, seed=1, progressbar=False)
        assert tree.attrs["engine"] == ("explicit" if name == "mediator missing" else "collapsed")
        within[name] = psm.indirect_effects(tree)["indirect"].sel(level="within").values
        slope[name] = tree["posterior"]["beta"].sel(term="y~m.within").values
        if name == "mediator missing":
            imputed = tree["posterior"]["imputed"].mean(("chain", "draw")).values
            assert tree["constant_data"]["row_of_missing"].values.tolist() == np.flatnonzero(lost).tolist()
            truth = frame["m"].to_numpy()[lost]
            # on average right, and better than the patient's mean of what is left
            assert abs((imputed - truth).mean()) < 3 * (imputed - truth).std() / np.sqrt(len(truth))
            assert np.corrcoef(imputed, truth)[0, 1] > 0.45
    spread = {name: values.std() for name, values in within.items()}
    off = {name: (values.mean() - within["complete"].mean()) / spread["complete"] for name, values in within.items()}
    assert abs(off["mediator missing"]) < 0.75 < 1.5 < -off["sessions deleted"]
    assert spread["mediator missing"] > spread["complete"]
    # fewer data and a narrower range: the estimates differ by about the root of the difference of their variances
    apart = np.sqrt(slope["outcome missing"].var() - slope["complete"].var())
    assert abs(slope["outcome missing"].mean() - slope["complete"].mean()) < 2 * apart

"""make_design(): every column equals one made by hand with pandas; nothing is left out without being counted."""

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech.design import Design, make_design
from psymech.errors import DataError, DesignError

ROUNDING = 1e-12
FREE = {"y": None, "x": None, "w": None, "age": None}


def frame(seed: int = 1) -> pd.DataFrame:
    """Five therapists, three patients each, sessions with gaps; sorted as SessionData sorts."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(5):
        for i in range(3):
            age = rng.normal(40, 10)
            sessions = np.sort(rng.choice(np.arange(1, 10), size=int(rng.integers(3, 8)), replace=False))
            rows += [(f"T{k}", f"T{k}P{i}", int(t), age, *rng.normal(size=3)) for t in sessions]
    return pd.DataFrame(rows, columns=["therapist", "patient", "session", "age", "x", "w", "y"])


def data(table: pd.DataFrame, **keywords: object) -> psm.SessionData:
    return psm.SessionData.from_frame(table, ranges=FREE, **keywords)  # pyright: ignore[reportArgumentType]


def column(design: Design, label: str) -> np.ndarray:
    return design.X[:, design.terms.index(label)]


def note(design: Design, code: str) -> str:
    (found,) = [f for f in design.report.findings if f.code == code]
    return found.message


def test_parts_equal_group_means() -> None:
    table = frame()
    design = make_design(psm.process("y", techniques=["x"], common_factors=["w"], covariates=["age"]), data(table))
    np.testing.assert_array_equal(design.y, table["y"])
    np.testing.assert_array_equal(column(design, "Intercept"), 1.0)
    np.testing.assert_array_equal(column(design, "time"), table["session"])
    np.testing.assert_array_equal(column(design, "age"), table["age"])
    for name in ("x", "w"):
        patient = table.groupby("patient")[name].transform("mean")
        therapist = table.groupby("therapist")[name].transform("mean")
        np.testing.assert_allclose(column(design, f"{name}.within"), table[name] - patient, atol=ROUNDING)
        np.testing.assert_allclose(column(design, f"{name}.patient"), patient - therapist, atol=ROUNDING)
        np.testing.assert_allclose(column(design, f"{name}.therapist"), therapist, atol=ROUNDING)
    means = table.groupby("therapist")["x"].mean()
    np.testing.assert_allclose(design.unit_means["therapist"]["x"], means, atol=ROUNDING)


def test_shuffled_rows_give_the_same_design() -> None:
    table = frame()
    spec = psm.process("y", techniques=["x"], lag=1, slopes={"patient": ["x"]}, residual="ar1")
    first = make_design(spec, data(table))
    again = make_design(spec, data(table.sample(frac=1, random_state=7)))
    for name in ("y", "X", "row", "session", "time", "previous", "gap"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for a, b in zip(first.levels, again.levels, strict=True):
        np.testing.assert_array_equal(a.code, b.code)
        np.testing.assert_array_equal(a.Z, b.Z)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("steps", [1, 2])
def test_lags_stop_at_gaps_and_first_sessions(steps: int) -> None:
    table = frame()
    table["within"] = table["x"] - table.groupby("patient")["x"].transform("mean")
    earlier = table[["patient", "session", "within"]].assign(session=lambda f: f["session"] + steps)
    merged = table.merge(earlier, on=["patient", "session"], how="left", suffixes=("", "_before"))
    expected = merged.dropna(subset=["within_before"])

    design = make_design(psm.process("y", techniques=["x"], lag=steps), data(table.drop(columns="within")))
    assert 0 < len(expected) < len(table)
    np.testing.assert_array_equal(design.row, expected.index)
    np.testing.assert_allclose(column(design, "x.within"), expected["within_before"], atol=ROUNDING)
    np.testing.assert_array_equal(design.y, expected["y"])

    lost = merged[merged["within_before"].isna()]
    first = (
        lost.groupby("patient")["session"].transform("size") * 0
        + table.groupby("patient")["session"].transform("min").loc[lost.index]
    )
    n_first = int((lost["session"] - steps < first).sum())
    message = note(design, "lag-rows")
    assert message.startswith(f"{len(lost)} sessions with an observed 'y' have no predecessor")
    assert f"{n_first} before a patient's first session" in message
    assert f"{len(lost) - n_first} at a gap between session numbers" in message


def test_the_patient_part_is_not_lagged_and_uses_every_session() -> None:
    table = frame()
    design = make_design(psm.process("y", techniques=["x"], lag=1), data(table))
    patient = table.groupby("patient")["x"].transform("mean") - table.groupby("therapist")["x"].transform("mean")
    np.testing.assert_allclose(column(design, "x.patient"), patient.loc[design.row], atol=ROUNDING)


def test_autoregressive_outcome_is_the_last_observed_value() -> None:
    table = frame()
    table.loc[[3, 11], "y"] = np.nan
    earlier = table[["patient", "session", "y"]].assign(session=lambda f: f["session"] + 1)
    merged = table.merge(earlier, on=["patient", "session"], how="left", suffixes=("", "_before")).dropna()
    design = make_design(psm.process("y", autoregressive=True), data(table))
    np.testing.assert_array_equal(design.row, merged.index)
    np.testing.assert_array_equal(column(design, "y.lag1"), merged["y_before"])


def test_interactions_are_products_of_columns() -> None:
    spec = psm.process(
        "y",
        techniques=["x"],
        common_factors=["w"],
        covariates=["age"],
        interactions=[("x", "w"), ("x.patient", "age"), ("time", "x.therapist")],
    )
    design = make_design(spec, data(frame()))
    for a, b in (("x.within", "w.within"), ("x.patient", "age"), ("time", "x.therapist")):
        np.testing.assert_array_equal(column(design, f"{a}:{b}"), column(design, a) * column(design, b))


def test_growth_columns_and_random_columns() -> None:
    table = frame().assign(weeks=lambda f: f["session"] * 1.5 + 0.25)
    spec = psm.growth("y", shape="quadratic", moderators=["age"], random={"patient": ["time"], "therapist": ["time"]})
    design = make_design(spec, data(table, time="weeks"))
    t = table["weeks"].to_numpy()
    expected = np.column_stack([np.ones_like(t), t, t**2, table["age"], t * table["age"], t**2 * table["age"]])
    np.testing.assert_allclose(design.X, expected, atol=ROUNDING)
    patient, therapist = design.levels
    for level in (patient, therapist):
        assert level.terms == ("Intercept", "time", "time^2")
        np.testing.assert_allclose(level.Z, expected[:, :3], atol=ROUNDING)
        np.testing.assert_array_equal(level.labels[level.code], table[level.level])
    np.testing.assert_array_equal(therapist.labels[patient.parent], [p[:2] for p in patient.labels])
    assert therapist.parent is None


def test_missing_outcomes_are_left_out_and_noted() -> None:
    table = frame()
    gone = table["patient"] == "T1P1"
    table.loc[gone, "y"] = np.nan
    table.loc[[0, 5], "y"] = np.nan
    design = make_design(psm.growth("y"), data(table))
    kept = table["y"].notna()
    np.testing.assert_array_equal(design.row, np.flatnonzero(kept))
    assert design.levels[0].n_units == 14
    assert "T1P1" not in design.levels[0].labels
    missing = note(design, "outcome-missing")
    assert missing.startswith(f"{int((~kept).sum())} of {len(table)} sessions have a missing 'y'")
    assert "1 patient(s) have none observed: T1P1" in missing
    assert "1 patient(s) have no usable session" in note(design, "patients-without-rows")


def test_missing_predictors_are_refused_with_counts() -> None:
    table = frame()
    table.loc[[2, 3], "x"] = np.nan
    table.loc[[7], "age"] = np.nan
    with pytest.raises(DataError) as caught:
        make_design(psm.process("y", techniques=["x"], covariates=["age"]), data(table))
    message = str(caught.value)
    assert f"'x': 2 missing (patients {table.loc[2, 'patient']})" in message
    assert f"'age': 1 missing (patients {table.loc[7, 'patient']})" in message
    assert "multiple imputation" in message


def test_a_predictor_may_be_missing_where_the_outcome_is() -> None:
    table = frame()
    table.loc[[2, 3], ["x", "y"]] = np.nan
    design = make_design(psm.process("y", covariates=["x"]), data(table))
    assert design.n_obs == len(table) - 2


def test_two_level_data_have_no_therapist_terms() -> None:
    table = frame().drop(columns="therapist")
    spec = psm.process("y", techniques=["x"], interactions=[("x.therapist", "w")], covariates=["w"])
    design = make_design(spec, data(table, therapist=None))
    assert design.terms == ("Intercept", "time", "x.within", "x.patient", "w")
    patient = table.groupby("patient")["x"].transform("mean")
    np.testing.assert_allclose(column(design, "x.patient"), patient, atol=ROUNDING)
    assert [level.level for level in design.levels] == ["patient"]


def test_a_level_that_the_model_leaves_out_is_not_in_the_design() -> None:
    design = make_design(psm.growth("y", random={"patient": [], "therapist": None}), data(frame()))
    assert [level.level for level in design.levels] == ["patient"]
    assert design.levels[0].parent is None


def test_levels_of_the_data_get_their_intercept() -> None:
    design = make_design(psm.growth("y", random={"patient": ["time"]}), data(frame()))
    assert [(level.level, level.terms) for level in design.levels] == [
        ("patient", ("Intercept", "time")),
        ("therapist", ("Intercept",)),
    ]
    assert design.levels[1].correlated is False


def test_a_level_that_the_data_lack_is_refused() -> None:
    with pytest.raises(DesignError, match=r"vary over level 'therapist', but the data name no therapist"):
        make_design(psm.growth("y", random={"therapist": ["time"]}), data(frame(), therapist=None))


def test_clinic_level_is_the_third() -> None:
    clinics = {"T0": "north", "T1": "north", "T2": "south", "T3": "west", "T4": "west"}
    table = frame().assign(clinic=lambda f: f["therapist"].map(clinics))
    design = make_design(psm.growth("y"), data(table, clinic="clinic"))
    patient, therapist, clinic = design.levels
    np.testing.assert_array_equal(clinic.labels, ["north", "south", "west"])
    assert therapist.parent is not None
    np.testing.assert_array_equal(clinic.labels[therapist.parent], list(clinics.values()))
    assert patient.parent is not None
    np.testing.assert_array_equal(therapist.code, patient.parent[patient.code])
    assert clinic.parent is None


def test_patients_nested_by_number_are_told_apart() -> None:
    table = frame().assign(patient=lambda f: f["patient"].str[-1])
    design = make_design(psm.growth("y"), data(table, patient_ids="nested"))
    patient, therapist = design.levels
    assert patient.n_units == 15
    assert patient.labels[0] == "T0/0"
    assert patient.parent is not None
    np.testing.assert_array_equal(therapist.code, patient.parent[patient.code])
    assert design.nested


def test_crossed_patients_have_no_parent() -> None:
    table = frame()
    table["therapist"] = np.roll(table["therapist"].to_numpy(), 4)
    design = make_design(psm.growth("y"), data(table, patient_ids="crossed"))
    assert not design.nested
    assert all(level.parent is None for level in design.levels)
    for level in design.levels:  # rows stay with their own patient and therapist
        shown = pd.DataFrame({"unit": level.labels[level.code], "y": design.y})
        merged = shown.merge(table, on="y", validate="one_to_one")
        np.testing.assert_array_equal(merged["unit"], merged[level.level])


def test_previous_rows_and_gaps() -> None:
    table = frame()
    design = make_design(psm.growth("y", residual="ar1"), data(table))
    before = table.groupby("patient")["session"].shift()
    np.testing.assert_array_equal(design.previous < 0, before.isna())
    has = design.previous >= 0
    np.testing.assert_array_equal(design.gap[has], (table["session"] - before)[has])
    np.testing.assert_array_equal(design.gap[~has], 0)
    np.testing.assert_array_equal(design.previous[has], np.arange(len(table))[has] - 1)


def test_ordinal_outcomes_are_coded_by_rank() -> None:
    table = frame().assign(y=lambda f: np.digitize(f["y"], [-0.5, 0.5]) * 2 + 1.0)
    design = make_design(psm.growth("y", family="ordinal"), data(table))
    assert design.categories == (1.0, 3.0, 5.0)
    np.testing.assert_array_equal(design.y, (table["y"] - 1) / 2)
    assert design.terms == ("time",)
    assert design.levels[0].terms == ("Intercept", "time")
    np.testing.assert_array_equal(design.levels[0].Z[:, 0], 1.0)


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("bernoulli", lambda f: f["session"], "family='bernoulli' needs 0 and 1 in 'y', found 1 "),
        ("ordinal", lambda f: f["y"], "family='ordinal' needs at most 30 whole-number categories in 'y', found"),
        ("gaussian", lambda f: 3.0, "Column 'y' has the one value 3 in every session: nothing varies"),
    ],
)
def test_outcomes_that_do_not_fit_the_family_are_refused(family: str, values, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        make_design(psm.growth("y", family=family), data(frame().assign(y=values)))  # pyright: ignore[reportArgumentType]


def test_an_outcome_without_values_is_refused() -> None:
    with pytest.raises(DataError, match="Column 'y': every value is missing"):
        make_design(psm.growth("y"), data(frame().assign(y=np.nan)))


def test_a_lag_beyond_every_session_is_refused() -> None:
    with pytest.raises(DesignError, match=r"No session of 'y' is left: all lack a predecessor 30 session\(s\) earlier"):
        make_design(psm.process("y", techniques=["x"], lag=30), data(frame()))


def test_an_absent_column_is_named_with_a_near_one() -> None:
    table = frame().assign(alliance=lambda f: f["x"])
    with pytest.raises(DataError, match=r"'aliance'.*alliance"):
        make_design(psm.process("y", techniques=["aliance"]), data(table))


def test_columns_of_a_patient_table_are_repeated_by_session() -> None:
    table = frame()
    patients = table.groupby("patient", as_index=False)["age"].first()
    design = make_design(psm.growth("y", covariates=["age"]), data(table.drop(columns="age"), patients=patients))
    np.testing.assert_array_equal(column(design, "age"), table["age"])


def test_patients_without_a_therapist_are_split_alike_however_they_are_coded() -> None:
    """A placeholder each made what differs between untreated patients a difference between therapists."""
    rng = np.random.default_rng(0)
    rows = [(k, f"P{k}-{i}", t, i % 2) for k in range(6) for i in range(4) for t in range(1, 5)]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session", "arm"])
    frame = frame.assign(x=rng.normal(size=len(rows)) + frame["therapist"], y=rng.normal(size=len(rows)))
    spec = psm.process("y", techniques=["x"], covariates=["arm"], therapist_in="arm")

    def design(untreated: pd.Series | str) -> Design:
        ids = ("T" + frame["therapist"].astype(str)).where(frame["arm"] == 1, untreated)
        data = psm.SessionData.from_frame(frame.assign(therapist=ids), ranges={"x": None, "y": None})
        return make_design(spec, data)

    one, each = design("untreated"), design("U" + frame["patient"])
    np.testing.assert_array_equal(one.X, each.X)
    x = dict(zip(one.terms, one.X.T, strict=True))
    mean = frame.loc[frame["arm"] == 0, "x"].mean()
    np.testing.assert_allclose(x["x.therapist"][x["arm"] == 0], mean)
    ids = each.unit_ids["therapist"].astype(str)
    np.testing.assert_allclose(each.unit_means["therapist"]["x"][np.char.startswith(ids, "U")], mean)
    with pytest.raises(DesignError, match=r"6 therapists \(T0, T1, .* also stand in rows of patients without"):
        design("T" + frame["therapist"].astype(str))

"""Explained variance where only one arm has therapists, and where patients change therapist."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.design import Design, make_design
from psymech.errors import SpecError
from tests.models.golden.make_membership_study import membership_study
from tests.models.golden.make_nested_study import nested_study
from tests.oracles import dense_weights
from tests.posterior.drawn_trees import drawn_tree

ROUNDING = 1e-10  # products and sums of a few hundred terms
STANDARD_ERRORS = 4.5  # of a Monte Carlo mean: missed once in 150,000
REPLICATES = 20_000
DRAW = (1, 7)


def shared(spec: psm.ModelSpec) -> tuple[xr.DataTree, Design, psm.SessionData]:
    frame = membership_study(therapists=5, patients=20, seed=3)
    scores = ["score_pre", "score_post"]
    data = psm.SessionData.from_frame(
        frame.drop(columns=scores),
        patients=frame.groupby("patient", as_index=False)[scores].first(),
        patient_ids="crossed",
        ranges={"y": None},
    )
    return drawn_tree(spec, data), make_design(spec, data), data


def of(tree: xr.DataTree, name: str) -> np.ndarray:
    return tree[names.POSTERIOR][name].values


def fixed_part(tree: xr.DataTree) -> np.ndarray:
    return tree[names.CONSTANT_DATA]["X"].values @ of(tree, "beta")[DRAW]


def means_of(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    place = np.unique(unit, return_inverse=True)[1]
    return (np.bincount(place, values) / np.bincount(place))[place]


@pytest.fixture(scope="module")
def arms() -> tuple[xr.DataTree, np.ndarray, pd.DataFrame]:
    """A tree of a partially nested design with therapists' slopes, the arm of each row, and the rows."""
    frame = nested_study(therapists=5, patients=3, sessions=5, seed=2)
    frame = frame[(frame["arm"] == 1) | (frame["session"] < 4)].reset_index(drop=True)
    spec = psm.growth(
        "y",
        moderators="arm",
        random={"patient": ["time"], "therapist": ["time"]},
        therapist_in="arm",
        residual_by="arm",
    )
    data = psm.SessionData.from_frame(frame, therapist="therapist", ranges={"y": None, "arm": None})
    tree = drawn_tree(spec, data)
    row = tree[names.CONSTANT_DATA]["row_of_obs"].values
    return (
        tree,
        data.values("arm")[row],
        pd.DataFrame({level: data.ids[level][data.codes[level][row]] for level in ("patient", "therapist")}),
    )


def test_therapists_of_one_arm_lie_between(arms: tuple[xr.DataTree, np.ndarray, pd.DataFrame]) -> None:
    tree, arm, _ = arms
    found = psm.r2(tree)
    np.testing.assert_allclose(found["total"].sum("source"), 1.0, rtol=ROUNDING)
    variance = found["variance"].isel(chain=DRAW[0], draw=DRAW[1])
    sd, corr = of(tree, "sd_therapist")[DRAW], of(tree, "corr_therapist")[DRAW]
    omega = corr * np.outer(sd, sd)
    z = tree[names.CONSTANT_DATA]["Z_therapist"].values[arm == 1]
    assert z[:, 0].tolist() == [1.0] * len(z)
    share, mean = len(z) / len(arm), z.mean(axis=0)
    assert 0.2 < share < 0.9
    assert float(variance.sel(source="means.therapist")) == pytest.approx(share * (mean @ omega @ mean), rel=ROUNDING)
    slopes = share * omega[1, 1] * z[:, 1].var()  # the arm does not vary among them
    assert float(variance.sel(source="slopes.therapist")) == pytest.approx(slopes, rel=ROUNDING)
    assert np.isfinite(found["between"].sel(source="means.therapist")).all()
    whole = psm.variance_partition(tree)["variance"].sel(level="therapist").values[DRAW]
    parts = variance.sel(source=["means.therapist", "slopes.therapist"]).sum()
    assert float(parts) == pytest.approx(whole, rel=ROUNDING)


def test_each_arm_has_its_own_parts(arms: tuple[xr.DataTree, np.ndarray, pd.DataFrame]) -> None:
    tree, arm, _ = arms
    found = psm.r2(tree, by="arm")
    assert found["total"].dims == ("chain", "draw", "source", "arm")
    np.testing.assert_allclose(found["total"].sum("source"), 1.0, rtol=ROUNDING)
    variance = found["variance"].isel(chain=DRAW[0], draw=DRAW[1])
    sd, corr = of(tree, "sd_therapist")[DRAW], of(tree, "corr_therapist")[DRAW]
    mean = tree[names.CONSTANT_DATA]["Z_therapist"].values[arm == 1].mean(axis=0)
    expected = mean @ (corr * np.outer(sd, sd)) @ mean
    assert float(variance.sel(source="means.therapist", arm=1)) == pytest.approx(expected, rel=ROUNDING)
    for kind in ("means", "slopes"):
        assert float(variance.sel(source=f"{kind}.therapist", arm=0)) == 0.0
    np.testing.assert_allclose(variance.sel(source="residual").values, of(tree, "sigma")[DRAW] ** 2, rtol=ROUNDING)
    fixed = fixed_part(tree)
    parts = variance.sel(source=[f"fixed.{part}" for part in ("within", "patient", "therapist", "arm")])
    for value in (0, 1):
        assert float(parts.sel(arm=value).sum()) == pytest.approx(fixed[arm == value].var(), rel=ROUNDING)
    assert float(np.abs(parts.sel(source=["fixed.arm"])).max()) < ROUNDING
    weights = xr.DataArray([np.mean(arm == 0), np.mean(arm == 1)], dims="arm", coords={"arm": [0.0, 1.0]})
    together = psm.r2(tree)["variance"].sel(source="means.therapist")
    xr.testing.assert_allclose((found["variance"].sel(source="means.therapist") * weights).sum("arm"), together)


def test_difference_between_arms_is_a_part_of_its_own(arms: tuple[xr.DataTree, np.ndarray, pd.DataFrame]) -> None:
    tree, arm, rows = arms
    variance = psm.r2(tree)["variance"].isel(chain=DRAW[0], draw=DRAW[1])
    fixed = fixed_part(tree)
    patient = means_of(fixed, rows["patient"].to_numpy().astype(str))
    therapist = means_of(fixed, np.where(arm == 1, rows["therapist"].to_numpy().astype(str), "none"))
    by_arm = means_of(fixed, arm)
    for source, part in (
        ("within", fixed - patient),
        ("patient", patient - therapist),
        ("therapist", therapist - by_arm),
        ("arm", by_arm - fixed.mean()),
    ):
        assert float(variance.sel(source=f"fixed.{source}")) == pytest.approx((part**2).mean(), rel=1e-8)  # differences
    assert (therapist - by_arm)[arm == 0] == pytest.approx(0.0, abs=ROUNDING)


def test_untreated_patients_under_real_therapists_stay_apart() -> None:
    frame = nested_study(therapists=5, patients=3, sessions=4, seed=2)
    frame["therapist"] = frame["patient"].str[2].map(lambda k: f"T{int(k) % 5}")
    data = psm.SessionData.from_frame(frame, therapist="therapist", ranges={"y": None, "arm": None})
    spec = psm.growth("y", covariates="arm", random={"patient": []}, therapist_in="arm")
    tree = drawn_tree(spec, data)
    arm = data.values("arm")[tree[names.CONSTANT_DATA]["row_of_obs"].values]
    found = psm.r2(tree)["variance"]
    sd = of(tree, "sd_therapist")[..., 0]
    np.testing.assert_allclose(found.sel(source="means.therapist"), (arm == 1).mean() * sd**2, rtol=ROUNDING)
    by_arm = means_of(fixed_part(tree), arm)
    assert float(found.sel(source="fixed.arm")[DRAW]) == pytest.approx(by_arm.var(), rel=1e-8)  # of a difference


def test_patients_who_pass_from_one_arm_to_the_other() -> None:
    frame = nested_study(therapists=5, patients=3, sessions=4, seed=2)
    frame = frame[frame["therapist"] != "untreated"].assign(arm=lambda f: (f["session"] > 2).astype(float))
    data = psm.SessionData.from_frame(frame, therapist="therapist", ranges={"y": None, "arm": None})
    tree = drawn_tree(psm.growth("y", covariates="arm", random={"patient": []}, therapist_in="arm"), data)
    found = psm.r2(tree)["variance"]
    sd = of(tree, "sd_therapist")[..., 0]
    spread = tree[names.CONSTANT_DATA]["Z_therapist"].values[:, 0].var()
    np.testing.assert_allclose(found.sel(source="slopes.therapist"), sd**2 * spread, rtol=ROUNDING)
    assert "fixed.arm" not in found["source"].values


def test_by_names_a_column_of_few_values(arms: tuple[xr.DataTree, np.ndarray, pd.DataFrame]) -> None:
    with pytest.raises(SpecError, match="by: expected one of the fixed effects"):
        psm.r2(arms[0], by="sex")
    drawn, _, _ = shared(psm.growth("y", random={"patient": []}))
    row = drawn[names.CONSTANT_DATA]
    row["X"] = row["X"].copy(data=row["X"].values + 1e-3 * np.arange(row.sizes["obs"])[:, None])
    with pytest.raises(SpecError, match="at most 20 different values"):
        psm.r2(drawn, by="time")


SPECS: dict[str, Callable[[], psm.ModelSpec]] = {
    "current": lambda: psm.growth("y", random={"patient": []}),
    "to date": lambda: psm.growth("y", random={"patient": [], "therapist": ["time"]}, membership="to date"),
}


@pytest.mark.parametrize("which", SPECS)
def test_patients_who_change_therapist_by_simulation(which: str) -> None:
    """Average squares of simulated therapists' parts, within and between patients, are those of the formulas."""
    tree, design, _ = shared(SPECS[which]())
    found = psm.r2(tree)
    np.testing.assert_allclose(found["total"].sum("source"), 1.0, rtol=ROUNDING)
    variance = found["variance"].isel(chain=DRAW[0], draw=DRAW[1])
    fixed = fixed_part(tree)
    parts = variance.sel(source=["fixed.within", "fixed.patient"])
    assert float(parts.sum()) == pytest.approx(fixed.var(), rel=ROUNDING)
    assert "fixed.therapist" not in variance["source"].values

    level = design.level("therapist")
    assert level is not None
    W = dense_weights(level)
    sd = of(tree, "sd_therapist")[DRAW]
    corr = of(tree, "corr_therapist")[DRAW] if len(sd) > 1 else np.eye(1)
    rng = np.random.default_rng(1)
    effects = rng.multivariate_normal(np.zeros(len(sd)), corr * np.outer(sd, sd), size=(REPLICATES, level.n_units))
    total = np.einsum("nk,nj,rkj->rn", W, level.Z, effects, optimize=True)
    close(np.mean(total**2, axis=1), variance.sel(source=[s for s in sources(variance) if ".therapist" in s]).sum())

    # the same with every row at the average of the columns: what of the means lasts, what changes
    squared = (W**2).sum(axis=1)
    middle = squared @ level.Z / squared.sum()
    at_mean = np.einsum("nk,j,rkj->rn", W, middle, effects, optimize=True)
    patient = np.eye(design.levels[0].n_units)[design.levels[0].code]
    lasting = (at_mean @ patient / patient.sum(axis=0)) @ patient.T
    close(np.mean(lasting**2, axis=1), variance.sel(source="means.therapist"))
    close(np.mean((at_mean - lasting) ** 2, axis=1), variance.sel(source="switching.therapist"))
    within = found["within"].isel(chain=DRAW[0], draw=DRAW[1])
    assert np.isfinite(within.sel(source="switching.therapist"))
    assert float(variance.sel(source="switching.therapist")) > 0.01


def sources(variance: xr.DataArray | xr.Dataset) -> list[str]:
    return [str(source) for source in variance["source"].values]


def close(simulated: np.ndarray, expected: xr.DataArray) -> None:
    error = simulated.std() / np.sqrt(simulated.size)
    assert abs(simulated.mean() - float(expected)) < STANDARD_ERRORS * error
    assert error < 0.05 * float(expected)


def test_scores_of_patients_who_changed() -> None:
    spec = psm.outcomes("score", predictors="y", decompose="observed", membership="multiple")
    tree, _, _ = shared(spec)
    found = psm.r2(tree)
    assert sources(found) == ["fixed.patient", "slopes.therapist", "means.therapist", "residual"]
    assert found["within"].isnull().all()
    np.testing.assert_allclose(found["total"].sum("source"), 1.0, rtol=ROUNDING)
    expected = psm.variance_partition(tree)["share"].sel(level="therapist")
    own = found["variance"].sel(source=["means.therapist", "residual"])
    share = own.sel(source="means.therapist", drop=True) / own.sum("source")
    np.testing.assert_allclose(share, expected, rtol=ROUNDING)

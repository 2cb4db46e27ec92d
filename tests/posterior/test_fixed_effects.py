import json

import arviz as az
import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.errors import DataError
from psymech.posterior.effects import effects
from tests.posterior.drawn_trees import drawn_tree
from tests.posterior.fitted_trees import two_response_tree

EXACT = 1e-12  # the same sums in another order


def test_rows_and_contextual_effects(tree: xr.DataTree) -> None:
    table = effects(tree)
    assert table.index.tolist() == [
        "Intercept",
        "time",
        "alliance.within",
        "alliance.patient",
        "alliance.therapist",
        "alliance.patient - alliance.within",
        "alliance.therapist - alliance.within",
        "alliance.therapist - alliance.patient",
    ]
    beta = tree["posterior"]["beta"].values
    contrast = (beta[..., 3] - beta[..., 2]).ravel()
    row = table.loc["alliance.patient - alliance.within"]
    np.testing.assert_allclose(row["mean"], contrast.mean(), rtol=EXACT)
    np.testing.assert_allclose(row["sd"], contrast.std(ddof=1), rtol=EXACT)
    np.testing.assert_allclose([row["eti89_lb"], row["eti89_ub"]], np.quantile(contrast, [0.055, 0.945]), rtol=EXACT)
    assert row["p_above_zero"] == (contrast > 0).mean()


def test_diagnostics_are_arviz(made: xr.DataTree) -> None:
    ours = effects(made, ci_prob=0.8)
    theirs = az.summary(made, var_names=["beta"], ci_prob=0.8, round_to="none")
    for column in ("mean", "sd", "eti80_lb", "eti80_ub", "ess_bulk", "ess_tail", "r_hat"):
        np.testing.assert_allclose(ours[column].to_numpy()[:5], theirs[column].to_numpy(), rtol=1e-10)


def test_interval_kind_follows_arviz(made: xr.DataTree) -> None:
    with az.rc_context({"stats.ci_kind": "hdi", "stats.ci_prob": 0.9}):
        table = effects(made)
        theirs = az.summary(made, var_names=["beta"], round_to="none")
    np.testing.assert_allclose(table["hdi90_lb"].to_numpy()[:5], theirs["hdi90_lb"].to_numpy(), rtol=1e-10)


def test_contextual_effects_stay_within_a_response(made: xr.DataTree) -> None:
    rows = effects(two_response_tree(made)).index
    assert "gad7~alliance.patient - gad7~alliance.within" in rows
    assert sum(" - " in row for row in rows) == 6


def moderated_rows(moderator: str) -> list[str]:
    spec = psm.process(
        "phq9",
        techniques=["directiveness"],
        common_factors=["alliance"],
        covariates=["reactance"],
        interactions=[("directiveness", moderator)],
    )
    rows = effects(drawn_tree(spec, psm.load_example("process_study"))).index
    return [row for row in rows if " - " in row]


def test_a_slope_at_zero_of_a_trait_has_no_contextual_effect() -> None:
    """Reactance is 1 to 5: the coefficient of directiveness.within is the slope of a patient that there is not."""
    rows = moderated_rows("reactance")
    assert "alliance.patient - alliance.within" in rows
    assert not any("directiveness.within" in row for row in rows)
    assert "directiveness.therapist - directiveness.patient" in rows


def test_a_slope_at_zero_of_a_deviation_is_an_average_one() -> None:
    assert "directiveness.patient - directiveness.within" in moderated_rows("alliance")


def test_no_contrast_without_parts(made: xr.DataTree) -> None:
    plain = made.copy()
    terms = [{**t, "part": "raw"} for t in json.loads(made.attrs["psymech_terms"])]
    plain.attrs = {**made.attrs, "psymech_terms": json.dumps(terms)}
    assert len(effects(plain)) == 5


def test_damaged_trees_are_named(made: xr.DataTree) -> None:
    broken = made.copy()
    broken.attrs = {**made.attrs, "psymech_terms": "{"}
    with pytest.raises(DataError, match=r"'psymech_terms'.*not JSON"):
        effects(broken)
    with pytest.raises(DataError, match="'posterior', found no group"):
        effects(xr.DataTree())

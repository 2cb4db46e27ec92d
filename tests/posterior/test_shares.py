"""Ingredient shares: hand algebra, exact sums, invariances; no sampling."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.errors import SpecError
from psymech.posterior.attribution import attribution_forms
from psymech.posterior.published import published_shares
from psymech.posterior.r2 import r2
from psymech.posterior.shares import ingredient_shares, summarize_shares
from psymech.posterior.sources import SOURCES, sources_of_terms
from psymech.posterior.variance import variance_partition
from tests.models.outcome_studies import study, tree_at
from tests.posterior.fitted_trees import assemble, make_tree, two_response_tree

ROUNDING = 1e-9  # relative; sums and products of a few hundred terms, one inversion of a correlation matrix
SUM_TO_ONE = 1e-12  # a handful of terms that are divided by their own sum


def entry(label: str, role: str, part: str = "raw") -> dict[str, object]:
    column = label.partition(".")[0]
    factors = [] if role == "intercept" else [{"column": column, "part": part, "lag": 0, "basis": None}]
    return {"label": label, "role": role, "part": part, "column": column, "factors": factors}


def tiny() -> xr.DataTree:
    """Two therapists of two patients of two sessions; a column is +-1 at its own level and sums to zero above."""
    patient = np.repeat(np.arange(4), 2)
    therapist = np.repeat([0, 1], 4)
    columns = {
        "Intercept": np.ones(8),
        "exposure.within": np.tile([-1.0, 1.0], 4),
        "alliance.patient": np.repeat([-1.0, 1.0, -1.0, 1.0], 2),
        "experience": np.repeat([-1.0, 1.0], 4),
    }
    x = np.stack(list(columns.values()), axis=1)
    draw = (1, 1)
    posterior = {
        names.BETA: (("chain", "draw", "term"), np.broadcast_to([10.0, 3.0, 2.0, 1.0], (*draw, 4)).copy()),
        names.sd("patient"): (("chain", "draw", "patient_term"), np.full((*draw, 1), 0.5)),
        names.sd("therapist"): (("chain", "draw", "therapist_term"), np.full((*draw, 1), 1.0)),
        names.SIGMA: (("chain", "draw"), np.full(draw, 2.0)),
    }
    constant = {
        names.DESIGN_X: (("obs", "term"), x),
        names.design_z("patient"): (("obs", "patient_term"), np.ones((8, 1))),
        names.design_z("therapist"): (("obs", "therapist_term"), np.ones((8, 1))),
        names.group_of_obs("patient"): (("obs",), patient),
        names.group_of_obs("therapist"): (("obs",), therapist),
    }
    return assemble(
        posterior=posterior,
        constant=constant,
        coords={"chain": [0], "draw": [0], "term": list(columns)},
        y=np.zeros(8),
        spec={"kind": "process", "residual": "iid", "responses": [{"column": "y", "family": "gaussian", "terms": []}]},
        terms=[
            entry("Intercept", "intercept"),
            entry("exposure.within", "technique", "within"),
            entry("alliance.patient", "common_factor", "patient"),
            entry("experience", "covariate"),
        ],
        seed=1,
    )


@pytest.fixture(scope="module")
def mixed() -> xr.DataTree:
    """A process model with every kind of term, at drawn parameters."""
    spec = psm.process(
        "phq9",
        techniques=["exposure", "insight"],
        common_factors=["alliance", "empathy"],
        covariates=["severity_pre", "experience_years", "directiveness"],
        interactions=[
            ("exposure", "alliance"),
            ("exposure", "insight"),
            ("exposure", "reactance"),
            ("exposure", "time"),
            ("severity_pre", "time"),
        ],
        slopes={"patient": ["alliance", "time"], "therapist": ["alliance"]},
        autoregressive=True,
        lag=1,
    )
    return tree_at(spec, psm.load_example("process_study"))


@pytest.fixture(scope="module")
def after() -> xr.DataTree:
    """Two scores after treatment, at drawn parameters."""
    spec = psm.outcomes(
        ["mood", "social"],
        techniques=["technique"],
        common_factors=["factor"],
        interactions=[("technique", "factor")],
    )
    return tree_at(spec, study(5, therapists=8, patients=6))


def of(tree: xr.DataTree, name: str) -> np.ndarray:
    return tree["posterior"][name].values


def test_orthogonal_columns_by_hand() -> None:
    shares = ingredient_shares(tiny()).squeeze()
    total = 9 + 4 + 1 + 0.25 + 1 + 4
    expected = {"techniques": 9, "common_factors": 4, "patient": 0.25, "therapist": 1 + 1, "residual": 4}
    assert list(shares["source"].values) == list(expected)
    for source, variance in expected.items():
        assert shares["share"].sel(source=source).item() == pytest.approx(variance / total)
    level = shares["share_of_level"]
    assert level.sel(level="within", source="techniques").item() == pytest.approx(9 / 13)
    assert level.sel(level="patient", source="common_factors").item() == pytest.approx(4 / 4.25)
    assert level.sel(level="therapist", source="therapist").item() == pytest.approx(1.0)
    explained = shares["share_explained"]
    assert explained.sel(source="techniques").item() == pytest.approx(9 / (total - 4))
    assert np.isnan(explained.sel(source="residual").item())
    predictors = shares["share_predictors"]
    assert predictors.sel(source="techniques").item() == pytest.approx(9 / 14)
    assert predictors.sel(source="therapist").item() == pytest.approx(1 / 14)
    assert np.isnan(predictors.sel(source="patient").item())


@pytest.mark.parametrize("r", [-0.6, 0.0, 0.3, 0.9])
def test_two_correlated_columns_by_the_formula(r: float) -> None:
    """Lindeman, Merenda and Gold for two: the mean of entering first and entering last."""
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(500, 2))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / 500)).T
    x = white @ np.linalg.cholesky([[1, r], [r, 1]]).T
    b = np.array([2.0, -1.5])
    forms = attribution_forms(x, {"a": [0], "b": [1]})
    for i, name in enumerate("ab"):
        first = (b[i] + r * b[1 - i]) ** 2
        last = b[i] ** 2 * (1 - r**2)
        assert b @ forms[name] @ b == pytest.approx((first + last) / 2, rel=ROUNDING)
    ahead = attribution_forms(x, {"a": [0], "b": [1]}, first=("b",))
    assert b @ ahead["b"] @ b == pytest.approx((b[1] + r * b[0]) ** 2, rel=ROUNDING)
    assert b @ ahead["a"] @ b == pytest.approx(b[0] ** 2 * (1 - r**2), rel=ROUNDING)


def test_forms_are_semidefinite_and_add_up_with_dependent_columns() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    x[:, 5] = x[:, 0] - 2 * x[:, 3]
    x -= x.mean(axis=0)
    covariance = x.T @ x / 60
    forms = attribution_forms(x, {"a": [0, 1], "b": [2], "c": [3, 4], "d": [5]})
    size = np.abs(covariance).max()
    np.testing.assert_allclose(sum(forms.values()), covariance, atol=ROUNDING * size)
    for form in forms.values():
        assert np.linalg.eigvalsh((form + form.T) / 2)[0] > -ROUNDING * size


def test_each_term_has_its_source(mixed: xr.DataTree) -> None:
    found = sources_of_terms(mixed, "phq9", ("patient", "therapist"))
    assert "Intercept" not in found
    assert {label: found[label] for label in found if "." not in label or ":" in label or label.endswith("lag1")} == {
        "time": "time",
        "phq9.lag1": "carry_over",
        "severity_pre": "patient",
        "experience_years": "therapist",
        "directiveness": "covariates",
        "exposure.within:alliance.within": "interaction",
        "exposure.within:insight.within": "techniques",
        "exposure.within:reactance": "matching",
        "exposure.within:time": "techniques",
        "severity_pre:time": "covariates",
    }
    assert found["insight.therapist"] == "techniques" and found["empathy.patient"] == "common_factors"


def test_sums_to_one_and_is_never_negative(mixed: xr.DataTree, after: xr.DataTree) -> None:
    trees = [
        mixed,
        after,
        make_tree(residual="ar1"),
        make_tree(family="bernoulli"),
        make_tree(family="student", clinics=3),
    ]
    for tree in trees:
        shares = ingredient_shares(tree)
        for name, dims in (
            ("share", "source"),
            ("share_explained", "source"),
            ("share_predictors", "source"),
            ("share_by_level", ["level", "source"]),
            ("share_of_level", "source"),
        ):
            summed = shares[name].sum(dims)
            if name == "share_of_level":
                summed = summed.where(shares[name].notnull().any("source"))
            np.testing.assert_allclose(summed.values[np.isfinite(summed.values)], 1.0, rtol=SUM_TO_ONE)
            assert float(shares[name].min()) > -SUM_TO_ONE
        assert shares["share"].notnull().all(("chain", "draw")).sum("source").min() > 2


def test_total_agrees_with_the_other_partitions(mixed: xr.DataTree) -> None:
    variance = ingredient_shares(mixed)["variance"].sum(("level", "source"))
    np.testing.assert_allclose(variance, r2(mixed)["variance"].sum("source"), rtol=ROUNDING)
    plain = make_tree()
    ours = ingredient_shares(plain)["variance"].sum("level")
    theirs = variance_partition(plain)["variance"]
    for source in ("patient", "therapist", "residual"):
        np.testing.assert_allclose(ours.sel(source=source), theirs.sel(level=source), rtol=ROUNDING)


def test_one_draw_by_brute_force(mixed: xr.DataTree) -> None:
    """Entering groups one by one, by regressions, in every order, at the within level."""
    from itertools import permutations

    x = mixed["constant_data"]["X"].values
    patient = mixed["constant_data"]["patient_of_obs"].values
    labels = list(mixed["posterior"]["term"].values)
    n = np.bincount(patient)
    within = np.stack([c - (np.bincount(patient, weights=c) / n)[patient] for c in x.T], axis=1)
    source = sources_of_terms(mixed, "phq9", ("patient", "therapist"))
    beta = of(mixed, "beta")[1, 3]
    eta = within @ beta
    groups: dict[str, list[int]] = {}
    for label, of_label in source.items():
        i = labels.index(label)
        if within[:, i].std() > 1e-8 * x[:, i].std():
            groups.setdefault(of_label, []).append(i)

    def explained(chosen: tuple[str, ...]) -> float:
        columns = within[:, [i for g in chosen for i in groups[g]]]
        return float(np.mean((columns @ np.linalg.lstsq(columns, eta, rcond=None)[0]) ** 2)) if chosen else 0.0

    known: dict[frozenset[str], float] = {}
    parts = dict.fromkeys(groups, 0.0)
    orders = list(permutations(groups))
    for order in orders:
        for k, name in enumerate(order):
            for end in (k, k + 1):
                if frozenset(order[:end]) not in known:
                    known[frozenset(order[:end])] = explained(order[:end])
            parts[name] += (known[frozenset(order[: k + 1])] - known[frozenset(order[:k])]) / len(orders)
    found = ingredient_shares(mixed)["variance"].sel(level="within").isel(chain=1, draw=3)
    for name, value in parts.items():
        assert found.sel(source=name).item() == pytest.approx(value, rel=1e-7)  # least squares of 2,000 rows


def test_order_of_rows_terms_and_units_is_without_meaning() -> None:
    tree = make_tree()
    rng = np.random.default_rng(2)
    rows = rng.permutation(tree["constant_data"].sizes["obs"])
    terms = rng.permutation(tree["posterior"].sizes["term"])
    units = rng.permutation(tree["posterior"].sizes["patient"])
    constant = tree["constant_data"].to_dataset().isel(obs=rows, term=terms)
    constant["patient_of_obs"] = ("obs", np.argsort(units)[constant["patient_of_obs"].values])
    old = json.loads(tree.attrs[names.ATTR_TERMS])
    other = xr.DataTree.from_dict(
        {
            names.POSTERIOR: tree["posterior"].to_dataset().isel(term=terms, patient=units),
            names.OBSERVED_DATA: tree["observed_data"].to_dataset().isel(obs=rows),
            names.CONSTANT_DATA: constant.drop_vars("therapist_of_patient"),
        }
    )
    other.attrs = {**tree.attrs, names.ATTR_TERMS: json.dumps([old[i] for i in terms])}
    xr.testing.assert_allclose(ingredient_shares(other), ingredient_shares(tree), rtol=ROUNDING)


def test_units_of_measurement_are_without_meaning(after: xr.DataTree) -> None:
    """A predictor in other units, its coefficient with it, and the outcome in other units leave every share alone."""
    scale = np.exp(np.random.default_rng(9).normal(size=after["posterior"].sizes["term"]))
    draws = after["posterior"].to_dataset()
    for name in ("beta", "sigma", "sd_therapist", "u_therapist"):
        draws[name] = draws[name] * 7.0
    draws["beta"] = draws["beta"] / scale
    constant = after["constant_data"].to_dataset()
    constant["X"] = constant["X"] * scale
    other = xr.DataTree.from_dict(
        {
            names.POSTERIOR: draws,
            names.CONSTANT_DATA: constant,
            names.OBSERVED_DATA: after["observed_data"].to_dataset(),
        }
    )
    other.attrs = dict(after.attrs)
    a, b = ingredient_shares(after), ingredient_shares(other)
    for name in ("share", "share_by_level", "share_of_level", "share_if_unrelated"):
        np.testing.assert_allclose(a[name], b[name], rtol=ROUNDING)


def test_one_score_a_patient_has_no_within_level(after: xr.DataTree) -> None:
    shares = ingredient_shares(after)
    assert shares["share"].dims == ("chain", "draw", "response", "source")
    assert list(shares["level"].values) == ["patient", "therapist"]
    assert list(shares["source"].values) == [
        "techniques",
        "common_factors",
        "interaction",
        "baseline",
        "therapist",
        "residual",
    ]
    residual = shares["variance"].sel(level="patient", source="residual", response="social_post")
    np.testing.assert_allclose(residual, of(after, "sigma")[..., 1] ** 2)
    assert "one score for each patient" in shares.attrs["units"]
    one = ingredient_shares(after, response="social_post")
    np.testing.assert_allclose(one["share"], shares["share"].sel(response="social_post"))
    assert json.loads(one.attrs["terms"])["baseline"] == ["social_post~social_pre"]


def test_scores_after_beside_outcomes_of_sessions() -> None:
    """Each response has its own levels; what it does not have is missing, not zero."""
    spec = psm.outcomes(
        ["coping", "phq9"], techniques=["exposure"], level={"phq9": "session"}, covariates=["expectations"]
    )
    shares = ingredient_shares(tree_at(spec, psm.load_example("process_study")))
    assert list(shares["level"].values) == ["within", "patient", "therapist"]
    np.testing.assert_allclose(shares["share"].sum("source"), 1.0, rtol=SUM_TO_ONE)
    level = shares["share_of_level"].isel(chain=0, draw=0)
    assert level.sel(response="coping_post", level="within").isnull().all()
    assert level.sel(response="coping_post", level="patient", source="residual").notnull()
    assert level.sel(response="phq9", level="within", source="residual").notnull()
    assert level.sel(response="phq9", level="patient", source="residual").isnull()
    assert shares["share"].sel(response="phq9", source="baseline").isnull().all()


def test_without_predictors_shares_are_the_variance_partition() -> None:
    tree = tree_at(psm.process("phq9", time=None), psm.load_example("process_study"))
    shares = ingredient_shares(tree)
    partition = variance_partition(tree)["share"]
    assert list(shares["source"].values) == list(partition["level"].values)
    np.testing.assert_allclose(shares["share"], partition, rtol=ROUNDING)
    assert shares["share_predictors"].isnull().all()


def test_entering_first_takes_what_is_shared(after: xr.DataTree) -> None:
    plain = ingredient_shares(after, response="mood_post")
    ahead = ingredient_shares(after, response="mood_post", first=("baseline",))
    np.testing.assert_allclose(ahead["share"].sum("source"), 1.0, rtol=SUM_TO_ONE)
    np.testing.assert_allclose(
        ahead["variance"].sum(("level", "source")), plain["variance"].sum(("level", "source")), rtol=ROUNDING
    )
    labels = list(after["posterior"]["term"].values)
    rows = after["constant_data"]["response_of_obs"].values == 0
    x = after["constant_data"]["X"].values[rows]
    therapist = after["constant_data"]["therapist_of_obs"].values[rows]
    n = np.bincount(therapist)
    within = np.stack([c - (np.bincount(therapist, weights=c) / n)[therapist] for c in x.T], axis=1)
    eta = within @ of(after, "beta")[0, 0]
    pre = within[:, labels.index("mood_post~mood_pre")]
    expected = (pre @ eta) ** 2 / (pre @ pre) / len(pre)
    found = ahead["variance"].sel(level="patient", source="baseline").values[0, 0]
    assert found == pytest.approx(expected, rel=ROUNDING)
    assert "baseline" in ahead.attrs["attribution"]


def test_uncertainty_alone_lifts_shares_as_said(after: xr.DataTree) -> None:
    """The mean over draws is the share of the mean coefficients plus what the covariance adds."""
    shares = ingredient_shares(after, response="mood_post")
    total = shares["variance"].sum(("level", "source"))
    draws = after["posterior"].to_dataset()
    draws["beta"] = draws["beta"].mean(("chain", "draw")) + 0 * draws["beta"]
    still = xr.DataTree.from_dict({names.POSTERIOR: draws, names.CONSTANT_DATA: after["constant_data"].to_dataset()})
    still.attrs = dict(after.attrs)
    at_mean = ingredient_shares(still, response="mood_post")
    for source in ("techniques", "common_factors", "interaction", "baseline"):
        lifted = (
            shares["variance"].sel(source=source).sum("level").mean()
            - at_mean["variance"].sel(source=source).sum("level").mean()
        )
        expected = shares["share_if_unrelated"].sel(source=source) * total.mean()
        assert lifted.item() == pytest.approx(expected.item(), rel=ROUNDING)


def test_several_responses_are_those_of_each_alone() -> None:
    tree = make_tree()
    both = ingredient_shares(two_response_tree(tree))
    np.testing.assert_allclose(both["share"].sel(response="phq9"), ingredient_shares(tree)["share"], rtol=ROUNDING)


def test_the_same_after_a_file(made: xr.DataTree, stored: xr.DataTree, tmp_path: Path) -> None:
    shares = ingredient_shares(made)
    xr.testing.assert_identical(shares, ingredient_shares(stored))
    shares.to_netcdf(tmp_path / "shares.nc")
    with xr.open_dataset(tmp_path / "shares.nc") as again:
        xr.testing.assert_allclose(again.load(), shares)
        assert again.attrs == shares.attrs


def test_words_and_published_shares_come_along(made: xr.DataTree) -> None:
    attrs = ingredient_shares(made).attrs
    assert "not the share of the improvement" in attrs["what_it_is_not"]
    assert "different estimand" in attrs["what_it_is_not"]
    published = {entry["what"]: entry for entry in json.loads(attrs["published"])}
    assert published["common factors"]["percent_low"] == 50 and published["therapist"]["percent_high"] == 18
    assert all(entry["same_estimand"] and entry["source"] for entry in published.values())


def test_published_shares_are_those_of_the_evidence_table(repository: Path) -> None:
    path = repository.parent / "shared" / "evidence" / "effect_sizes.csv"
    if not path.is_file():
        pytest.skip("the evidence table beside the checkout is absent")
    with path.open() as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    ids = {
        "common factors": "share_common",
        "specific techniques": "share_specific",
        "extra-therapeutic factors": "share_extra",
        "therapist": "therapist_effect_max",
        "treatment method": "treatment_method_max",
    }
    for share in published_shares():
        row = table[ids[share.what]]
        assert (share.percent_high, share.source) == (float(row["estimate"]), row["source"])
    assert published_shares()[-1].percent_low == float(table["treatment_method_min"]["estimate"])


def test_table_in_percent(made: xr.DataTree) -> None:
    shares = ingredient_shares(made)
    table = summarize_shares(shares, ci_prob=0.9)
    assert list(table.columns) == ["mean", "sd", "eti90_lb", "eti90_ub", "if_unrelated"]
    assert table["mean"].sum() == pytest.approx(100.0)
    levels = summarize_shares(shares, kind="share_of_level")
    assert levels.groupby("level")["mean"].sum().to_numpy() == pytest.approx(100.0)
    assert levels.index.names == ["level", "source"]


def test_refusals(made: xr.DataTree) -> None:
    with pytest.raises(SpecError, match=r"sources among .* found 'allegiance'"):
        ingredient_shares(made, first=("allegiance",))
    with pytest.raises(SpecError, match="expected one of phq9"):
        ingredient_shares(made, response="gad7")
    with pytest.raises(SpecError, match="kind: expected one of share"):
        summarize_shares(ingredient_shares(made), kind="variance")
    assert len(set(SOURCES)) == len(SOURCES)

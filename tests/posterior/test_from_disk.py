"""Every estimate is the same from a file, and from a tree of the other engine that holds the same draws."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.inference.chains import Drawn, RunOptions
from psymech.inference.drawing import tree_of
from tests.inference.studies import small_data

pytestmark = pytest.mark.sampling

type Estimate = Callable[[xr.DataTree], object]

SPEC = psm.growth("y", random={"patient": ["time"], "therapist": ["time"]})
NEW = pd.DataFrame({"patient": ["T0P0", "T1P1"], "therapist": ["T0", "T1"], "session": [2, 5]})
SAYS_THE_ENGINE = re.compile(
    r"explicit|collapsed|; random effects were integrated out analytically and drawn exactly afterwards"
)

ESTIMATES: Mapping[str, Estimate] = {
    "effects": lambda tree: psm.effects(tree),
    "effects, standardised": lambda tree: psm.effects(tree, standardize="total"),
    "therapist_effects": lambda tree: psm.therapist_effects(tree),
    "therapist_effects of patients": lambda tree: psm.therapist_effects(tree, level="patient", term="time"),
    "summarize_therapists": lambda tree: psm.summarize_therapists(tree, higher_is_better=False),
    "rank_therapists": lambda tree: psm.rank_therapists(tree, top=0.2),
    "compare_therapists": lambda tree: psm.compare_therapists(tree),
    "reliability": lambda tree: psm.reliability(tree),
    "reliability by formula": lambda tree: psm.reliability(tree, method="formula"),
    "minimum_caseload": lambda tree: psm.minimum_caseload(tree),
    "variance_partition": lambda tree: psm.variance_partition(tree, per="patient"),
    "variance_partition over time": lambda tree: psm.variance_partition(tree, at={"time": [0, 3]}),
    "slope_share": lambda tree: psm.slope_share(tree),
    "r2": lambda tree: psm.r2(tree),
    "exceedance": lambda tree: psm.exceedance(tree, threshold=0.3),
    "rankability": lambda tree: psm.rankability(tree),
    "rankability by formula": lambda tree: psm.rankability(tree, method="formula"),
    "caseload": lambda tree: psm.caseload(tree),
    "caseload_table": lambda tree: psm.caseload_table(tree),
    "expected_trajectories": lambda tree: psm.expected_trajectories(tree),
    "predict": lambda tree: psm.predict(tree, NEW, seed=1),
    "predict draws": lambda tree: psm.predict(tree, NEW, target="new_patient", kind="draw", seed=1),
    "true_change": lambda tree: psm.true_change(tree, threshold=1.0, cutoff=7.0),
    "check_sampling": lambda tree: psm.check_sampling(tree).to_frame(),
    "check_sampling in words": lambda tree: str(psm.check_sampling(tree)),
    "check_model": lambda tree: psm.check_model(tree, draws=100).to_frame(),
    "loo of sessions": lambda tree: left_out(tree, "session"),
    "loo of patients": lambda tree: left_out(tree, "patient"),
    "loo of therapists": lambda tree: left_out(tree, "therapist"),
}


def left_out(tree: xr.DataTree, unit: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Pareto k, which is compared
        found = psm.loo(tree, unit=unit)  # pyright: ignore[reportArgumentType]
    assert found.elpd_i is not None and found.pareto_k is not None
    values = {"elpd": np.ravel(found.elpd_i), "k": np.ravel(found.pareto_k)}
    return pd.DataFrame(values).assign(total=found.elpd, se=found.se, p=found.p)


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return small_data(6)


@pytest.fixture(scope="module")
def fitted(data: psm.SessionData) -> xr.DataTree:
    with pytest.warns(psm.SamplingWarning):  # short chains
        tree = psm.fit(SPEC, data, engine="collapsed", chains=2, draws=120, tune=200, seed=1, progressbar=False)
    assert tree.attrs[names.ATTR_ENGINE] == "collapsed"
    return tree


@pytest.fixture(scope="module")
def others(
    fitted: xr.DataTree, data: psm.SessionData, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, xr.DataTree]:
    """The fit read back from disk; and its draws in the tree of a run of the explicit engine."""
    path = psm.save(fitted, tmp_path_factory.mktemp("fit") / "fit.nc")
    built = psm.build_model(SPEC, data, engine="explicit")
    draws, stats = fitted["posterior"].dataset, fitted["sample_stats"].dataset
    drawn = Drawn(
        {str(name): each.values for name, each in draws.data_vars.items()},
        {str(name): each.values for name, each in stats.data_vars.items() if name != "lp"},
        (120, 120),
        (0, 1),
    )
    options = RunOptions(
        draws=120, tune=200, chains=2, cores=1, seed=1, target_accept=0.8, max_treedepth=10, progressbar=False
    )
    explicit = tree_of(built, "nutpie", options, drawn, {})
    assert explicit.attrs[names.ATTR_ENGINE] == "explicit"
    return {"disk": psm.load(path), "explicit": explicit}


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_are_the_same_from_disk_and_from_the_other_engine(
    name: str, fitted: xr.DataTree, others: dict[str, xr.DataTree]
) -> None:
    wanted = ESTIMATES[name](fitted)
    for kind, tree in others.items():
        found = ESTIMATES[name](tree)
        if isinstance(wanted, pd.DataFrame):
            assert isinstance(found, pd.DataFrame)
            pd.testing.assert_frame_equal(found, wanted, check_exact=True)
        elif isinstance(wanted, str):
            assert found == wanted, kind
        else:
            assert isinstance(wanted, xr.DataArray | xr.Dataset)
            xr.testing.assert_identical(found, wanted)


def test_reports_and_tables_are_the_same_from_disk_and_from_the_other_engine(
    fitted: xr.DataTree, others: dict[str, xr.DataTree], tmp_path: Path
) -> None:
    pages, tables = {}, {}
    for kind, tree in {"memory": fitted, **others}.items():
        page = psm.report(tree, tmp_path / f"{kind}.html", anonymize=False, withhold=False, tables=tmp_path / kind)
        pages[kind] = page.read_text(encoding="utf-8")
        written = psm.write_tables(tree, tmp_path / f"{kind} alone", anonymize=False, withhold=False)
        tables[kind] = {path.name: path.read_bytes() for path in sorted((tmp_path / kind).iterdir())}
        assert {path.name: path.read_bytes() for path in written} == tables[kind]
    assert pages["disk"] == pages["memory"]
    assert tables["disk"] == tables["explicit"] == tables["memory"]
    assert pages["explicit"] != pages["memory"]
    assert SAYS_THE_ENGINE.sub("", pages["explicit"]) == SAYS_THE_ENGINE.sub("", pages["memory"])

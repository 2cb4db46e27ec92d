"""Cross-products summed by DuckDB against those summed here."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from psymech.errors import DataError, DesignError, SpecError
from psymech.gaussian.cross import cross_products
from psymech.gaussian.residual import ByGroup

duckdb = pytest.importorskip("duckdb", reason="needs the data extra")

from psymech.gaussian.query import from_query  # noqa: E402

RTOL = 1e-12  # the same sums, compensated there and plain here
MODEL = {
    "columns": {"Intercept": "1", "time": "session / 4.0"},
    "response": "score",
    "levels": ["patient", "therapist", "clinic"],
    "random": [["Intercept", "time"], ["time"], ["Intercept"]],
    "fixed": ["time", "Intercept"],
}


def sessions() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    patient = np.repeat(np.arange(12), rng.integers(1, 5, size=12))
    frame = pd.DataFrame({"patient": patient, "session": rng.integers(0, 9, size=patient.size)})
    frame["therapist"], frame["clinic"] = "t" + (patient // 3).astype(str).astype(object), patient // 6
    frame["score"], frame["arm"] = rng.normal(size=patient.size), np.where(patient % 2, "cbt", "act")
    return frame.sample(frac=1, random_state=1)


@pytest.mark.parametrize("group", [None, "arm"])
def test_query_over_parquet_equals_rows_in_memory(tmp_path: Path, group: str | None) -> None:
    frame = sessions()
    duckdb.from_df(frame).write_parquet(str(tmp_path / "sessions.parquet"))
    found = from_query(tmp_path / "sessions.parquet", **MODEL, group=group)
    columns = np.column_stack([np.ones(len(frame)), frame["session"] / 4])
    parents = [np.arange(12) // 3, np.arange(4) // 2]
    terms = None if group is None else ByGroup((frame["arm"] == "cbt").to_numpy().astype(np.int64)).terms()
    expected = cross_products(columns, frame["score"], frame["patient"], parents, [[0, 1], [1], [0]], [1, 0], terms)
    np.testing.assert_allclose(found.cross.S, expected.S, rtol=RTOL, atol=RTOL)
    for a, b in zip(found.cross.parents, expected.parents, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found.cross.n_obs_by_unit, expected.n_obs_by_unit)
    assert found.ids[0].tolist() == list(range(12)) and found.ids[1].tolist() == ["t0", "t1", "t2", "t3"]
    assert found.ids[2].tolist() == [0, 1]


def test_missing_scores_are_refused() -> None:
    frame = sessions()
    frame.loc[frame["patient"] == 3, "score"] = np.nan
    with pytest.raises(DataError, match="rows of 3"):
        from_query(duckdb.from_df(frame), **MODEL)


def test_changed_therapist_is_refused() -> None:
    frame = sessions()
    twice = pd.concat([frame, frame[frame["patient"] == 5].assign(therapist="t3")])
    with pytest.raises(DesignError, match="level 0 ids 5 belong to several"):
        from_query(duckdb.from_df(twice), **MODEL)


def test_therapist_in_two_clinics_is_refused() -> None:
    frame = sessions()
    frame.loc[frame["patient"] == 4, "clinic"] = 1
    with pytest.raises(DesignError, match="level 1 ids t1 belong to several"):
        from_query(duckdb.from_df(frame), **MODEL)


def test_unknown_column_is_refused() -> None:
    with pytest.raises(SpecError, match="Columns alliance"):
        from_query(duckdb.from_df(sessions()), **{**MODEL, "fixed": ["alliance"]})

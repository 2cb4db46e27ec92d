"""Caseloads in a fit that was saved without its rows: counts of therapists and clinics stay, small cells do not."""

from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import DataError
from psymech.posterior import tree as read

UPPER: Final = ("therapist", "clinic")
COUNTS: Final = ("n_therapists", "n_patients", "n_sessions", "caseload")
SMALLEST: Final = 5  # patients: what the sessions of fewer are in all says too much about one of them
KEPT: Final = frozenset(names.count_of_unit(count, level) for count in COUNTS for level in UPPER)


def counts_to_keep(table: pd.DataFrame, labels: list, level: str) -> dict[str, xr.Variable]:
    """Return the columns of a level's caseload as variables over all its units.

    Patients of a unit follow from who treats whom, which stays. Sessions, and shares of patients, are missing for
    units of fewer than five patients: of a single patient they would be that patient's.
    """
    small = table["n_patients"].to_numpy() < SMALLEST
    blanked = {name: np.where(small & (name in ("n_sessions", "caseload")), np.nan, table[name]) for name in table}
    every = pd.DataFrame(blanked, index=table.index).reindex(labels)
    return {names.count_of_unit(str(name), level): xr.Variable((level,), every[name].to_numpy(float)) for name in every}


def kept_caseload(tree: xr.DataTree, level: str, response: str | None) -> pd.DataFrame:
    """Return the caseload that a fit without its rows kept; DataError where it has none."""
    group = tree[names.CONSTANT_DATA].dataset if names.CONSTANT_DATA in tree.children else xr.Dataset()
    found = {count: group[name].values for count in COUNTS if (name := names.count_of_unit(count, level)) in group}
    several = response is not None and len(read.responses_of(tree)) > 1
    if not found or several:
        of = f"{level}s' counts of single outcomes" if several and found else f"the caseload of {level}s"
        raise DataError(
            f"{of} needs the rows, but the fit was saved without them (data=False). Take it from the fit as it was "
            "before, psymech.caseload(tree), and keep that table."
        )
    table = pd.DataFrame(found, index=pd.Index(read.unit_labels(tree, level), name=level))
    table = table.iloc[read.units_with_rows(tree, level)]
    whole = {name: np.int64 for name in table if bool((table[name] % 1 == 0).all()) and name != "caseload"}
    return table.astype(whole)

"""check_calibration(): whether the ranks of a calibration run are uniform."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.calibration.run import ATTR_RANKED, ATTR_TRUTH, PRIOR_SBC, SIMULATIONS
from psymech.calibration.uniformity import chi_square, ecdf_p_value, holm
from psymech.errors import DataError, SpecError

BAND: Final = 0.05  # the ECDF leaves its simultaneous 95% band with this probability where all is well
ALLOWED_FAILURES: Final = 0.02  # share of fits that may fail
FEWEST: Final = 20


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """Whether the ranks of a calibration run are uniform.

    Attributes
    ----------
    ok : no quantity fails at `alpha` after Holm's adjustment, and few enough fits failed.
    table : one row a quantity: quantity, chi_square (p-value), ecdf (p-value), in_band (its ECDF stays within the
        simultaneous 95% band, by itself), adjusted (the smaller p-value, doubled, after Holm's adjustment over all
        quantities).
    alpha : probability that all being well the ranks fail.
    simulations : number of simulations; failed : fits that failed, those without ranks included.
    """

    ok: bool
    table: pd.DataFrame
    alpha: float
    simulations: int
    failed: int

    def __str__(self) -> str:
        worst = self.table.sort_values("adjusted").head(5)
        outside = int(np.count_nonzero(~self.table["in_band"].to_numpy()))
        head = (
            f"{'calibrated' if self.ok else 'NOT calibrated'}: {self.simulations} simulations, {self.failed} failed "
            f"fits, {len(self.table)} quantities, {outside} outside the simultaneous {100 * (1 - BAND):g}% band by "
            f"themselves ({BAND * len(self.table):.1f} expected); alpha {self.alpha:g} over all. The least uniform:"
        )
        return f"{head}\n{worst.to_string(index=False, float_format='%.3g')}"


def check_calibration(result: xr.DataTree, *, alpha: float = 0.001) -> CalibrationReport:
    r"""Test that the ranks of every quantity are uniform.

    Two tests each: Pearson's chi-square over equal bins, and the largest deviation of the ECDF relative to its
    pointwise distribution, which is what a simultaneous band tests (exact p-values; Säilynoja, Bürkner & Vehtari
    2022). The smaller p-value counts twice, and Holm's adjustment runs over all quantities, so that a sound model
    fails with probability `alpha` at most, however many quantities there are.

    Parameters
    ----------
    result
        From :func:`psymech.calibrate`, without `truth`.
    alpha
        Level over all quantities together. Every quantity's own p-values and band are in the table.

    Returns
    -------
    CalibrationReport
        ``ok`` also needs 98% of the fits to have passed their checks. Prints as a summary with the least uniform
        quantities.

    Raises
    ------
    SpecError
        The run set true values, for which ranks are not uniform, or `alpha` is no probability.
    DataError
        The tree is no calibration run, or has ranks of fewer than 20 simulations.

    References
    ----------
    Säilynoja, Bürkner & Vehtari (2022), doi:10.1007/s11222-022-10090-6.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.check_calibration(result).ok  # doctest: +SKIP
    True
    """
    if not 0 < alpha < 1:
        raise SpecError(f"alpha: expected a number between 0 and 1, found {alpha!r}.")
    entries, pit = ranked(result)
    if result.attrs[ATTR_TRUTH] != "{}":
        raise SpecError(
            f"This run set true values ({result.attrs[ATTR_TRUTH]}), so its ranks need not be uniform. Look at "
            "psymech.coverage(result), or calibrate without truth=."
        )
    if len(pit) < FEWEST:
        raise DataError(f"Expected ranks of at least {FEWEST} simulations, found {len(pit)}. Run more simulations.")
    n_values = int(result.attrs[ATTR_RANKED]) + 1
    ranks = np.rint(pit * n_values - 0.5).astype(np.int64)
    chi = np.array([chi_square(column, n_values) for column in ranks.T])
    ecdf = np.array([ecdf_p_value(column, n_values) for column in ranks.T])
    adjusted = holm(np.minimum(1.0, 2 * np.minimum(chi, ecdf)))
    columns = {"quantity": entries, "chi_square": chi, "ecdf": ecdf, "in_band": ecdf >= BAND, "adjusted": adjusted}
    table = pd.DataFrame(columns)
    status = result[SIMULATIONS].dataset["status"].values
    failed = int((status != "ok").sum())
    ok = bool((adjusted >= alpha).all()) and failed <= ALLOWED_FAILURES * status.size
    return CalibrationReport(ok, table, alpha, int(status.size), failed)


def ranked(result: xr.DataTree, group: str = PRIOR_SBC) -> tuple[list[str], NDArray[np.float64]]:
    """Return the names of all entries of a group, and their values (simulation, entry)."""
    if group not in result.children or ATTR_RANKED not in result.attrs:
        raise DataError(f"expected the result of psymech.calibrate with the group {group!r}. Run it first.")
    entries: list[str] = []
    columns = []
    for name, variable in result[group].dataset.items():
        values = variable.transpose(*names.SAMPLE_DIMS, ...)
        dims = values.dims[2:]
        labels = [[str(x) for x in values[d].values.tolist()] for d in dims]
        for index in np.ndindex(values.shape[2:]):
            shown = ", ".join(axis[i] for axis, i in zip(labels, index, strict=True))
            entries.append(f"{name}[{shown}]" if dims else str(name))
        columns.append(values.values.reshape(values.shape[1], -1))
    return entries, np.concatenate(columns, axis=1)

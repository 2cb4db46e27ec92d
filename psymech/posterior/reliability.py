"""How well the data tell therapists apart, and the caseload that a stated reliability needs."""

from typing import Literal, get_args

import numpy as np
import xarray as xr

from psymech import names
from psymech.arguments import is_number
from psymech.errors import SpecError
from psymech.names import INTERCEPT, LEVELS, SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.caseload import rows_for
from psymech.posterior.information import refuse_uncovered, sampling_variance
from psymech.posterior.variance import variance_partition

Method = Literal["posterior", "formula"]


def reliability(
    tree: xr.DataTree,
    *,
    term: str = INTERCEPT,
    response: str | None = None,
    level: str = "therapist",
    method: Method = "posterior",
) -> xr.DataArray:
    r"""Reliability of each therapist's (patient's, clinic's) effect.

    ``method="posterior"``, for any random term:

    .. math:: \lambda_k = 1 - \frac{\mathrm{Var}(v_k \mid y)}{E[\sigma_v^2 \mid y]}

    The posterior variance includes what is not known about the average, so lambda stays a little under the
    textbook's value, and may fall below zero where the data say nothing about a therapist. ``method="formula"``,
    for a Gaussian model with independent residuals and nested levels, per draw:

    .. math:: \lambda_k = \frac{\sigma_v^2}{\sigma_v^2 + V_k}, \qquad
              V_k = \left[\sum_i (\sigma_u^2 + \sigma^2 / n_{ik})^{-1}\right]^{-1}

    for random intercepts, with :math:`n_{ik}` the sessions of patient i of therapist k; with slopes :math:`V_k` is the
    term's diagonal of :math:`[\sum_i Z_{ik}' (\sigma^2 I + Z_{ik} \Omega_u Z_{ik}')^{-1} Z_{ik}]^{-1}`, the sampling
    variance of the therapist's own coefficient, and lambda is zero where the sessions do not determine it.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    term, response, level
        As in :func:`therapist_effects`.
    method : {"posterior", "formula"}

    Returns
    -------
    DataArray
        Dims (level) for "posterior", (chain, draw, level) for "formula". Zero where nothing was observed, one at most.

    Raises
    ------
    SpecError
        No such level or term; or the formula is asked for a model that it does not cover.

    References
    ----------
    Raudenbush & Bryk (2002), Hierarchical Linear Models, 2nd ed., Sage.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.reliability(course, term="time").sizes
    Frozen({'therapist': 20})
    """
    if method not in get_args(Method):
        raise SpecError(f"method: expected one of {', '.join(get_args(Method))}, found {method!r}.")
    if method == "formula":
        return _by_formula(tree, term=term, response=response, level=level)
    effects = read.unit_effects(tree, level=level, term=term, response=response)
    sd = read.level_sd(tree, level=level, term=term, response=response)
    return (1.0 - effects.var(SAMPLE_DIMS, ddof=1) / (sd**2).mean()).rename("reliability")


def _by_formula(tree: xr.DataTree, *, term: str, response: str | None, level: str) -> xr.DataArray:
    chosen = read.one_response(tree, response)
    label = read.random_label(tree, level, term, response)
    known = read.require_level(tree, level)
    refuse_uncovered(tree, chosen)
    below = [each for each in read.levels_of(tree) if LEVELS.index(each) < LEVELS.index(known)]
    blocks = {each: read.labels_of(read.posterior(tree), names.term_dim(each)) for each in [*below, known]}
    effects = read.unit_effects(tree, level=level, term=label)
    kept = read.units_with_rows(tree, level)
    if any(terms != (INTERCEPT,) for terms in blocks.values()):
        variance = (read.level_sd(tree, level=level, term=label) ** 2).values.ravel()[:, None]
        noise = sampling_variance(tree, level=known, response=chosen)[:, kept, blocks[known].index(label)]
        return effects.copy(data=(variance / (variance + noise)).reshape(effects.shape)).rename("reliability")
    variances = {each: (read.level_sd(tree, level=each, term=INTERCEPT) ** 2).values.ravel() for each in blocks}
    information = _information(tree, variances, (read.residual_sd(tree, chosen) ** 2).values.ravel())
    information = information[kept]
    share = variances[level] * information / (variances[level] * information + 1.0)
    return effects.copy(data=share.T.reshape(effects.shape)).rename("reliability")


def _information(tree: xr.DataTree, variances: dict[str, np.ndarray], sigma2: np.ndarray) -> np.ndarray:
    """Return the information about the mean of each unit of the last level, shape (units, draws).

    Sessions add up within a unit; going up a level adds that level's variance to the unit's, and units add up.
    """
    rows = rows_for(tree, None)
    levels = list(variances)
    units = [read.unit_of_obs(tree, each)[rows] for each in levels]
    sizes = [len(read.unit_labels(tree, each)) for each in levels]
    sessions = np.bincount(units[0], minlength=sizes[0])
    if len(levels) == 1:
        return sessions[:, None] / sigma2
    # units of the lowest level differ in their number of sessions only, so equal numbers are computed once
    seen, which = np.unique(sessions, return_inverse=True)
    information = (seen[:, None] / sigma2) / (1.0 + variances[levels[0]] * seen[:, None] / sigma2)
    table = np.zeros((sizes[1], seen.size))
    np.add.at(table, (_owners(units[0], units[1], sizes[0]), which), 1.0)
    information = table @ information
    for i in range(1, len(levels) - 1):
        passed = information / (1.0 + variances[levels[i]] * information)
        table = np.zeros((sizes[i + 1], sizes[i]))
        table[_owners(units[i], units[i + 1], sizes[i]), np.arange(sizes[i])] = 1.0
        information = table @ passed
    return information


def _owners(units: np.ndarray, above: np.ndarray, n_units: int) -> np.ndarray:
    owners = np.zeros(n_units, dtype=np.int64)  # a unit without rows carries no information, whoever owns it
    owners[units] = above
    return owners


def minimum_caseload(
    tree: xr.DataTree, *, reliability: float = 0.7, response: str | None = None, sessions: float | None = None
) -> xr.DataArray:
    r"""Patients a therapist needs for a stated reliability of the therapist's effect, per draw.

    .. math:: n = \frac{r}{1 - r} \cdot \frac{1 - \mathrm{VPC}}{\mathrm{VPC}}

    with VPC the therapists' share of the variance of one outcome per patient (:func:`variance_partition`,
    ``per="patient"``). A share of 0.05 and a reliability of 0.7 give 44.3: 45 patients. Clinics' variance is no part of
    it: a therapist's patients share the clinic, so that no number of them tells therapists of one clinic apart any
    better or worse for it. Where therapists share patients (``membership=``) VPC is that of a patient who stays with
    one, and the caseload is of such patients; one shared with weight w tells as much as :math:`w^2` of them at best.

    Parameters
    ----------
    tree : DataTree
        A fitted tree with a therapist level.
    reliability : float
        The reliability wanted, between 0 and 1.
    response, sessions
        As in :func:`variance_partition`.

    Returns
    -------
    DataArray
        Dims (chain, draw); not rounded. Summarise with quantiles: the mean is pulled up by draws with hardly any
        therapist variance.

    References
    ----------
    Schiefele, Lutz, Barkham et al. (2017), Reliability of therapist effects in practice-based psychotherapy
    research, Administration and Policy in Mental Health 44, 598-613. https://doi.org/10.1007/s10488-016-0736-3

    Examples
    --------
    >>> import psymech as psm
    >>> bool(psm.minimum_caseload(tree, reliability=0.7).median() > 20)
    True
    """
    share = share_within_clinics(tree, response=response, sessions=sessions)
    return caseload_for(share, reliability=reliability).rename("minimum_caseload")


def share_within_clinics(tree: xr.DataTree, *, response: str | None, sessions: float | None) -> xr.DataArray:
    """Return the therapists' share of the variance of one outcome per patient with one therapist, clinics' variance
    left out, dims (chain, draw).
    """
    read.require_level(tree, "therapist")
    refuse_mixed_shares(tree)
    variance = variance_partition(tree, per="patient", response=response, sessions=sessions)["variance"]
    therapist = variance.sel(level="therapist", drop=True)
    if read.is_shared(tree, "therapist"):
        z = read.design_rows(tree, "therapist", read.rows_of_response(tree, read.one_response(tree, response)))
        moment = z.T @ z / len(z)
        therapist = therapist.copy(data=np.einsum("cdij,ij->cd", read.covariance(tree, "therapist"), moment))
    others = [each for each in variance["level"].values if each not in ("clinic", "therapist")]
    return therapist / (therapist + variance.sel(level=others).sum("level"))


def refuse_mixed_shares(tree: xr.DataTree) -> None:
    """Raise SpecError where the therapists' average share of the variance is not that of a patient with one of them."""
    column = read.json_attr(tree, names.ATTR_SPEC).get("therapist_in")
    if column is not None:
        raise SpecError(
            f"A caseload needs the therapists' share among patients who have one (therapist_in={column!r}): give "
            f"caseload_for() that of variance_partition(tree, per='patient', at={{{column!r}: [1]}})."
        )


def caseload_for(share: xr.DataArray, *, reliability: float) -> xr.DataArray:
    """Return the patients needed at a therapist share: ``r / (1 - r) * (1 - share) / share``.

    >>> import xarray as xr
    >>> round(float(caseload_for(xr.DataArray(0.05), reliability=0.7)), 1)
    44.3
    """
    if not (is_number(reliability) and 0.0 < reliability < 1.0):
        raise SpecError(f"reliability: expected a value between 0 and 1, found {reliability!r}.")
    return reliability / (1.0 - reliability) * (1.0 - share) / share

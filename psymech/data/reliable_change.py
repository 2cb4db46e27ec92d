"""Reliable and clinically significant change of observed scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd
from scipy.stats import norm

from psymech.arguments import finite, is_number, positive
from psymech.errors import DataError, SpecError

Method = Literal["jacobson-truax", "hageman-arrindell"]
CRITICAL: Final[dict[str, float]] = {"jacobson-truax": 1.96, "hageman-arrindell": 1.65}
"""Published critical values: two-sided 5 % and one-sided 5 %."""


@dataclass(frozen=True, slots=True)
class ClinicalCutoffs:
    """Cut-offs between the dysfunctional and the functional population.

    Attributes
    ----------
    a : two SDs beyond the dysfunctional mean, towards the functional one.
    b : two SDs from the functional mean, towards the dysfunctional one.
    c : the point that is equally many SDs from both means; the one to take where the populations overlap.
    """

    a: float
    b: float
    c: float


def clinical_cutoffs(
    *,
    dysfunctional_mean: float,
    dysfunctional_sd: float,
    functional_mean: float,
    functional_sd: float,
    reliability: float | None = None,
) -> ClinicalCutoffs:
    r"""Return the cut-offs a, b and c of Jacobson and Truax, or of Hageman and Arrindell.

    .. math:: a = M_1 \pm 2 s_1, \qquad b = M_0 \mp 2 s_0, \qquad c = \frac{s_0 M_1 + s_1 M_0}{s_0 + s_1}

    with M and s the mean and SD of the dysfunctional (1) and the functional population (0); signs so that a lies on the
    functional side of :math:`M_1`.

    With `reliability` they are cut-offs between true scores (Hageman & Arrindell): each SD is taken without measurement
    error, :math:`\sqrt{s^2 - E^2}` with the standard error of measurement :math:`E = s_1 \sqrt{1 - r_{xx}}` in both
    populations.

    Parameters
    ----------
    dysfunctional_mean, dysfunctional_sd, functional_mean, functional_sd : float
    reliability : float, optional
        :math:`r_{xx}` of the measure in the dysfunctional population.

    Raises
    ------
    SpecError
        An SD not above zero, equal means, or an SD no larger than the standard error of measurement.

    References
    ----------
    Jacobson & Truax (1991), Clinical significance, Journal of Consulting and Clinical Psychology 59, 12-19.
    https://doi.org/10.1037/0022-006X.59.1.12
    Hageman & Arrindell (1999), https://doi.org/10.1016/S0005-7967(99)00032-7

    Examples
    --------
    >>> clinical_cutoffs(dysfunctional_mean=40, dysfunctional_sd=7.5, functional_mean=60, functional_sd=7.5)
    ClinicalCutoffs(a=55.0, b=45.0, c=50.0)
    """
    s1, s0 = positive(dysfunctional_sd, "dysfunctional_sd"), positive(functional_sd, "functional_sd")
    m1, m0 = float(dysfunctional_mean), float(functional_mean)
    if not np.isfinite([m1, m0]).all() or m1 == m0:
        raise SpecError(f"Expected two different means, found {m1!r} (dysfunctional) and {m0!r} (functional).")
    if reliability is not None:
        error = difference_error(sd=s1, reliability=reliability) / np.sqrt(2.0)
        if s0 <= error:
            raise SpecError(
                f"functional_sd: expected more than the standard error of measurement ({error:.4g}), found {s0!r}: the "
                "functional population would have no true differences. Leave reliability= out."
            )
        s1, s0 = float(np.sqrt(s1**2 - error**2)), float(np.sqrt(s0**2 - error**2))
    sign = 1.0 if m0 > m1 else -1.0
    return ClinicalCutoffs(a=m1 + sign * 2 * s1, b=m0 - sign * 2 * s0, c=(s0 * m1 + s1 * m0) / (s0 + s1))


def difference_error(*, sd: float, reliability: float) -> float:
    r"""Return the standard error of a difference of two scores, :math:`\sqrt{2}\, s_1 \sqrt{1 - r_{xx}}`.

    >>> round(difference_error(sd=7.5, reliability=0.8), 2)
    4.74
    """
    if not 0.0 < reliability < 1.0:
        raise SpecError(f"reliability: expected a value between 0 and 1, found {reliability!r}.")
    return float(np.sqrt(2.0) * positive(sd, "sd") * np.sqrt(1.0 - reliability))


def reliable_change(
    pre: Sequence[float] | np.ndarray | pd.Series,
    post: Sequence[float] | np.ndarray | pd.Series,
    *,
    sd: float,
    reliability: float,
    method: Method = "jacobson-truax",
    cutoff: float | None = None,
    lower_is_better: bool = True,
    confidence: float | None = None,
) -> pd.DataFrame:
    r"""Tell for each patient whether the observed change is more than measurement error, and clinically significant.

    ``"jacobson-truax"``:

    .. math:: RC = (x_2 - x_1) / S_d, \qquad S_d = \sqrt{2}\, s_1 \sqrt{1 - r_{xx}}, \qquad |RC| > 1.96

    ``"hageman-arrindell"``: the change is drawn towards the mean change by the reliability of differences,

    .. math:: RC = \frac{(x_2 - x_1)\, r_d + (M_2 - M_1)(1 - r_d)}{\sqrt{r_d}\, S_d}, \qquad
              r_d = 1 - S_d^2 / \mathrm{Var}(x_2 - x_1), \qquad |RC| > 1.65

    with means and variance those of the patients given; r_d is the published ratio of true to observed variance of
    differences where both occasions share one standard error of measurement E. With a cut-off K between true scores,
    recovery asks that the true score after treatment lies beyond it,

    .. math:: CS = \frac{M_2 + (x_2 - M_2)\, r_2 - K}{\sqrt{r_2}\, E}, \qquad
              r_2 = 1 - E^2 / \mathrm{Var}(x_2), \qquad |CS| > 1.65

    Parameters
    ----------
    pre, post : one score a patient; where both are Series they are matched by index.
    sd : float
        SD of the scores before treatment, :math:`s_1`.
    reliability : float
        :math:`r_{xx}` of the measure.
    method : {"jacobson-truax", "hageman-arrindell"}
    cutoff : float, optional
        Between dysfunctional and functional, such as :func:`psymech.clinical_cutoffs` gives: adds recovery. For
        ``"hageman-arrindell"`` the cut-off between true scores (``clinical_cutoffs(..., reliability=...)``).
    lower_is_better : bool
    confidence : float, optional
        Two-sided confidence in the place of the method's published critical value.

    Returns
    -------
    DataFrame
        ``pre``, ``post``, ``change`` (post - pre), ``rci`` (its sign as that of the change), ``status``: recovered
        (improved, and post on the functional side of the cut-off where pre was not), improved, unchanged, deteriorated;
        missing where a score is. ``"hageman-arrindell"`` with a cut-off adds ``csi``, CS signed so that positive is the
        functional side; recovered then asks for ``csi`` above the critical value.

    Raises
    ------
    DataError
        Scores that do not match, or that vary less than their measurement error (Hageman-Arrindell).
    SpecError
        An unknown method, or a reliability that is none.

    References
    ----------
    Jacobson & Truax (1991), https://doi.org/10.1037/0022-006X.59.1.12
    Hageman & Arrindell (1999), Establishing clinically significant change: increment of precision and the distinction
    between individual and group level of analysis, Behaviour Research and Therapy 37, 1169-1193.
    https://doi.org/10.1016/S0005-7967(99)00032-7

    Examples
    --------
    >>> reliable_change([32.5], [47.5], sd=7.5, reliability=0.8, cutoff=50, lower_is_better=False).round(2)
        pre  post  change   rci    status
    0  32.5  47.5    15.0  3.16  improved
    """
    if method not in get_args(Method):
        raise SpecError(f"method: expected one of {', '.join(get_args(Method))}, found {method!r}.")
    if confidence is not None and not (is_number(confidence) and 0.0 < confidence < 1.0):
        raise SpecError(f"confidence: expected a probability between 0 and 1, found {confidence!r}.")
    if cutoff is not None:
        finite(cutoff, "cutoff")
    scores = _paired(pre, post)
    error = difference_error(sd=sd, reliability=reliability)
    critical = CRITICAL[method] if confidence is None else float(norm.ppf(0.5 + confidence / 2.0))
    change = scores["post"] - scores["pre"]
    rci = change / error
    if method == "hageman-arrindell":
        share = _true_share(change.dropna().to_numpy(), error)
        rci = (change * share + change.mean() * (1.0 - share)) / (np.sqrt(share) * error)
    gain = -rci if lower_is_better else rci
    status = pd.Series("unchanged", index=scores.index, dtype=object)
    status[gain > critical] = "improved"
    status[gain < -critical] = "deteriorated"
    if cutoff is not None:
        before = scores["pre"] > cutoff if lower_is_better else scores["pre"] < cutoff
        after = scores["post"] < cutoff if lower_is_better else scores["post"] > cutoff
        if method == "hageman-arrindell":
            csi = _beyond_cutoff(
                scores["post"].to_numpy(), change.notna().to_numpy(), cutoff, error / np.sqrt(2.0), lower_is_better
            )
            after = csi > critical
            scores = scores.assign(csi=csi)
        status[(gain > critical) & before & after] = "recovered"
    table = scores.assign(change=change, rci=rci, status=status.where(change.notna(), None))
    order = [name for name in ("pre", "post", "change", "rci", "csi", "status") if name in table]
    return table.loc[:, order]


def _beyond_cutoff(
    post: np.ndarray, complete: np.ndarray, cutoff: float, error: float, lower_is_better: bool
) -> np.ndarray:
    """How far the estimated true score after treatment lies beyond the cut-off, in its standard errors."""
    share = _true_share(post[complete], error, what="The scores after treatment")
    mean = post[complete].mean()
    distance = (mean + (post - mean) * share - cutoff) / (np.sqrt(share) * error)
    return -distance if lower_is_better else distance


def _paired(pre: object, post: object) -> pd.DataFrame:
    if isinstance(pre, pd.Series) and isinstance(post, pd.Series):
        if not (pre.index.is_unique and post.index.is_unique):
            raise DataError("Expected one score a patient, found index labels of pre or post that occur twice.")
        first, second = pre.index, post.index
        return pd.DataFrame(
            {"pre": pd.Series(_scores(pre, "pre"), first), "post": pd.Series(_scores(post, "post"), second)}
        )
    first, second = _scores(pre, "pre"), _scores(post, "post")
    if first.ndim != 1 or first.shape != second.shape:
        raise DataError(f"Expected pre and post of one length, found shapes {first.shape} and {second.shape}.")
    index = pre.index if isinstance(pre, pd.Series) else post.index if isinstance(post, pd.Series) else None
    return pd.DataFrame({"pre": first, "post": second}, index=index)


def _scores(given: object, name: str) -> np.ndarray:
    try:
        values = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as problem:
        raise DataError(f"{name}: expected numbers, found {given!r:.60}. Leave missing scores NaN.") from problem
    if np.isinf(values).any():
        raise DataError(f"{name}: expected finite scores, found {int(np.isinf(values).sum())} infinite (inf). Use NaN.")
    return values


def _true_share(change: np.ndarray, error: float, *, what: str = "The changes") -> float:
    """Reliability of scores: the share of their variance that is not measurement error."""
    variance = change.var(ddof=1) if change.size > 1 else 0.0
    if variance <= error**2:
        raise DataError(
            f"{what} of {change.size} patients have the variance {variance:.4g}, no more than that of measurement "
            f"error ({error**2:.4g}), so that their reliability is undefined. Use method='jacobson-truax'."
        )
    return float(1.0 - error**2 / variance)

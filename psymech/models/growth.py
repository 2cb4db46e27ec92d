"""The model builder growth: how does the outcome change, and how do patients and therapists differ in it."""

from collections.abc import Iterable, Mapping

from psymech.arguments import finite
from psymech.errors import SpecError
from psymech.models.common import RandomTerms, intercept, names_of, outcome_name, random_blocks, time_terms
from psymech.models.nesting import partially_nested
from psymech.names import TIME, Level, Membership
from psymech.spec.model import Factor, Family, ModelSpec, ResidualKind, Response, Term, TimeKind, TimeShape
from psymech.spec.priors import Prior, check_priors


def growth(
    outcome: str,
    *,
    shape: TimeKind | TimeShape = "linear",
    random: RandomTerms = None,
    covariates: Iterable[str] | str = (),
    moderators: Iterable[str] | str = (),
    family: Family = "gaussian",
    residual: ResidualKind = "iid",
    residual_by: str | None = None,
    therapist_in: str | None = None,
    membership: Membership = "current",
    correlated: bool | Mapping[Level, bool] = True,
    centred: Mapping[Level, bool] | None = None,
    knots: Iterable[float] = (),
    df: int = 3,
    priors: Mapping[str, Prior] | None = None,
) -> ModelSpec:
    r"""Describe a growth model: the course of one outcome over sessions, patients and therapists.

    .. math::

        y_{tik} = x_{tik}'\beta + z_t' u_{ik} + z_t' v_k + e_{tik},\quad
        u_{ik} \sim N(0, \Omega_u),\; v_k \sim N(0, \Omega_v),\; e \sim N(0, \sigma^2)

    for session t of patient i of therapist k; x holds the constant, the time columns, covariates and moderators with
    their products with time. The fixed effects are the average course; u and v are deviations of patients and of
    therapists.

    Parameters
    ----------
    outcome
        Column of the outcome, one value a session.
    shape
        ``"linear"``; ``"log"``: log(1 + time - first time), log(session) where sessions start at 1; ``"quadratic"``;
        ``"piecewise"`` with `knots`; ``"spline"``, a natural cubic spline with `df` columns.
    random
        Terms that vary, by level, on top of the intercept: ``{"patient": ["time"], "therapist": ["time"]}``.
        ``"time"`` means every time column. A level of the data that is not named gets its intercept; ``None`` leaves
        a level out. Default: time varies over patients.
    covariates, moderators
        Columns that shift the level; moderators act on the change over time as well (``time:severity``).
    family
        ``"gaussian"``, ``"student"`` (heavy-tailed residuals), ``"bernoulli"`` (logit), ``"ordinal"`` (cumulative
        logit).
    residual
        ``"iid"`` or ``"ar1"``: residuals of sessions d apart correlate phi^d.
    residual_by
        A column whose values have a residual SD each, such as the arm or a period; or ``"therapist"``: each therapist
        has one, log sigma_k ~ N(log sigma, sd_log_sigma^2), see :func:`psymech.consistency`; with a prior of
        ``corr_log_sigma`` among `priors` they correlate with the therapists' intercepts.
    therapist_in
        A 0/1 column among the covariates or moderators: therapists' effects are multiplied by it, as where only one
        arm has therapists. Give patients without one any placeholder as therapist id.
    membership
        For patients who change therapist (``patient_ids="crossed"``): ``"current"``, a session belongs to the
        therapist who held it; ``"to date"``, to all therapists whom the patient has seen, weighted by their shares of
        the sessions up to and including this one, so that what earlier therapists did stays with the patient.
    correlated
        Whether the random terms of a level correlate, for all levels or by level.
    centred
        By level: sample the effects centred (True) or non-centred (False) on the explicit graph; by default the data
        decide.
    knots, df
        Parameters of the piecewise and spline shapes.
    priors
        Overrides by name, such as ``{"sd_therapist[Intercept]": psm.HalfNormal(2)}``; see
        :func:`psymech.describe_priors`.

    Returns
    -------
    ModelSpec
        A frozen value; nothing is computed yet.

    Raises
    ------
    SpecError
        Where the keywords contradict each other or name a term that the model does not have.

    References
    ----------
    Raudenbush & Bryk (2002), Hierarchical Linear Models, chapters 6 and 8. Singer & Willett (2003),
    doi:10.1093/acprof:oso/9780195152968.001.0001.

    Examples
    --------
    >>> import psymech as psm
    >>> slopes = {"patient": ["time"], "therapist": ["time"]}
    >>> spec = psm.growth("phq9", shape="log", random=slopes, moderators=["severity"])
    >>> spec.responses[0].labels
    ('Intercept', 'time', 'severity', 'time:severity')
    """
    outcome_name(outcome)
    form = shape if isinstance(shape, TimeShape) else TimeShape(shape, _knots(knots), df)
    covariate_names = names_of(covariates, "covariates")
    moderator_names = names_of(moderators, "moderators")
    for name in (outcome, *covariate_names, *moderator_names):
        if name == TIME:
            raise SpecError(
                "'time' is already in the model through its shape; do not name it as a covariate or moderator."
            )
    if outcome in (*covariate_names, *moderator_names):
        raise SpecError(f"The outcome {outcome!r} cannot predict itself.")
    both = sorted(set(covariate_names) & set(moderator_names))
    if both:
        raise SpecError(f"{both[0]!r} is both a covariate and a moderator. A moderator already has its own effect.")
    times = time_terms(form)
    terms: list[Term] = [intercept(), *times]
    terms += [Term(name, (Factor(name),), "covariate") for name in covariate_names]
    terms += [Term(name, (Factor(name),), "moderator") for name in moderator_names]
    terms += [
        Term(f"{t.label}:{name}", (*t.factors, Factor(name)), "interaction") for name in moderator_names for t in times
    ]
    blocks, without = random_blocks(
        {"patient": [TIME]} if random is None else random,
        terms,
        argument="random",
        correlated=correlated,
        centred=centred,
    )
    blocks = partially_nested(blocks, without, terms, therapist_in)
    if family == "ordinal":
        terms = terms[1:]  # the thresholds take the place of the intercept
    return ModelSpec(
        kind="growth",
        responses=(Response(outcome, tuple(terms), family),),
        random=blocks,
        without=without,
        residual=residual,
        time=form,
        priors=check_priors(priors),
        residual_by=residual_by,
        therapist_in=therapist_in,
        membership=membership,
    )


def _knots(given: Iterable[float]) -> tuple[float, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SpecError(f"knots: expected times such as (4, 8), found {given!r}.")
    return tuple(finite(knot, "knots") for knot in given)

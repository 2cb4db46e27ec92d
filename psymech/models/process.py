"""The model builder process: which techniques and common factors go with the outcome, and for whom."""

from collections.abc import Iterable, Mapping, Sequence

from psymech.arguments import instance
from psymech.errors import SpecError, UnavailableError
from psymech.models.common import (
    RandomTerms,
    interaction_term,
    intercept,
    names_of,
    outcome_name,
    part_label,
    random_blocks,
    read_factor,
    time_terms,
    variable_parts,
)
from psymech.models.nesting import partially_nested
from psymech.names import TIME, Level, Membership
from psymech.spec.model import (
    DECOMPOSITIONS,
    Decompose,
    Factor,
    Family,
    ModelSpec,
    ResidualKind,
    Response,
    Role,
    Term,
    TimeKind,
    TimeShape,
    one_of,
)
from psymech.spec.priors import Prior, check_priors

Interaction = str | Sequence[str]


def process(
    outcome: str,
    *,
    techniques: Iterable[str] | str = (),
    common_factors: Iterable[str] | str = (),
    covariates: Iterable[str] | str = (),
    interactions: Iterable[Interaction] = (),
    slopes: RandomTerms = None,
    lag: int | Mapping[str, int] = 0,
    autoregressive: bool = False,
    time: TimeKind | TimeShape | None = "linear",
    decompose: Decompose = "observed",
    family: Family = "gaussian",
    residual: ResidualKind = "iid",
    residual_by: str | None = None,
    therapist_in: str | None = None,
    membership: Membership = "current",
    correlated: bool | Mapping[Level, bool] = True,
    centred: Mapping[Level, bool] | None = None,
    priors: Mapping[str, Prior] | None = None,
) -> ModelSpec:
    r"""Describe a process-outcome model of sessions in patients in therapists.

    Every technique and common factor x is split (``decompose="observed"``) into

    .. math:: x_{tik} = (x_{tik}-\bar x_{ik}) + (\bar x_{ik}-\bar x_k) + \bar x_k

    with one coefficient each: ``x.within`` (sessions of one patient), ``x.patient`` (patients of one therapist) and
    ``x.therapist`` (therapists). Without therapists in the data the last part is absent and ``x.patient`` is the
    patient's mean.

    .. math:: y_{tik} = x_{tik}'\beta + z_{tik}'u_{ik} + z_{tik}'v_k + e_{tik}

    Parameters
    ----------
    outcome
        Column of the outcome, one value a session.
    techniques, common_factors
        Columns rated per session; both kinds are decomposed and lagged alike.
    covariates
        Columns taken as given (patient or therapist characteristics, or session variables), labelled by their name.
    interactions
        Pairs such as ``("exposure", "alliance")`` or ``"exposure:alliance"``; a decomposed variable named without a
        part means its within-patient part: ``exposure.within:alliance.within``. Parts can be named:
        ``("exposure.within", "reactance")``.
    slopes
        Terms that vary over the units of a level on top of the intercept, such as
        ``{"patient": ["alliance"], "therapist": ["alliance.within", "time"]}``. A level of the data that is not named
        gets its intercept; ``None`` leaves a level out.
    lag
        Sessions by which techniques and common factors precede the outcome, for all or by column. Only the
        within-patient part is lagged (the other parts do not change over sessions). Lags stop at a patient's first
        session and at gaps; sessions without a predecessor are left out and counted.
    autoregressive
        Add the outcome's own last value, uncentred, as ``<outcome>.lag1``. With few sessions a patient its
        coefficient is biased either way of centring (Nickell 1981, doi:10.2307/1911408; Hamaker & Grasman 2015,
        doi:10.3389/fpsyg.2014.01492).
    time
        Shape of the trend as in :func:`psymech.growth`, or None for none.
    decompose
        ``"observed"`` splits by observed means, ``"none"`` takes predictors as given, ``"latent"`` is not available
        yet.
    family, residual, residual_by, therapist_in, membership, correlated, centred, priors
        As in :func:`psymech.growth`.

    Returns
    -------
    ModelSpec

    Raises
    ------
    SpecError
        Where the keywords contradict each other.
    UnavailableError
        For ``decompose="latent"``.

    References
    ----------
    Enders & Tofighi (2007), doi:10.1037/1082-989X.12.2.121; Curran & Bauer (2011),
    doi:10.1146/annurev.psych.093008.100356; Baldwin, Wampold & Imel (2007), doi:10.1037/0022-006X.75.6.842.

    Examples
    --------
    >>> import psymech as psm
    >>> spec = psm.process(
    ...     "phq9",
    ...     techniques=["exposure"],
    ...     common_factors=["alliance"],
    ...     interactions=[("exposure", "alliance")],
    ...     slopes={"patient": ["alliance"], "therapist": ["alliance"]},
    ... )
    >>> spec.responses[0].labels[-1]
    'exposure.within:alliance.within'
    """
    one_of(decompose, DECOMPOSITIONS, "decompose")
    if decompose == "latent":
        raise UnavailableError("decompose='latent' is not available yet; use 'observed', or 'none'.")
    outcome_name(outcome)
    instance(autoregressive, bool, "autoregressive", "True or False")
    technique_names = names_of(techniques, "techniques")
    factor_names = names_of(common_factors, "common_factors")
    covariate_names = names_of(covariates, "covariates")
    predictors = (*technique_names, *factor_names)
    _refuse_double_roles(outcome, technique_names, factor_names, covariate_names)
    lags = _read_lags(lag, predictors)
    decomposed = predictors if decompose == "observed" else ()

    form = time if isinstance(time, TimeShape) or time is None else TimeShape(time)
    times = time_terms(form)
    terms: list[Term] = [intercept(), *times]
    if autoregressive:
        terms.append(Term(f"{outcome}.lag1", (Factor(outcome, "raw", 1),), "autoregressive"))
    for column in predictors:
        role: Role = "technique" if column in technique_names else "common_factor"
        for part in variable_parts(bool(decomposed)):
            shift = lags[column] if part in ("within", "raw") else 0
            terms.append(Term(part_label(column, part), (Factor(column, part, shift),), role))
    terms += [Term(name, (Factor(name),), "covariate") for name in covariate_names]
    for entry in (interactions,) if isinstance(interactions, str) else interactions:
        terms.append(_interaction(entry, outcome=outcome, decomposed=decomposed, lags=lags, times=times))
    blocks, without = random_blocks(
        slopes, terms, argument="slopes", decomposed=decomposed, correlated=correlated, centred=centred
    )
    blocks = partially_nested(blocks, without, terms, therapist_in)
    if family == "ordinal":
        terms = terms[1:]
    return ModelSpec(
        kind="process",
        responses=(Response(outcome, tuple(terms), family),),
        random=blocks,
        without=without,
        residual=residual,
        time=form,
        decompose=decompose,
        priors=check_priors(priors),
        residual_by=residual_by,
        therapist_in=therapist_in,
        membership=membership,
    )


def _refuse_double_roles(outcome: str, *groups: tuple[str, ...]) -> None:
    seen: set[str] = {TIME}
    for name in (outcome, *(name for group in groups for name in group)):
        if name in seen:
            raise SpecError(
                f"{name!r} has two roles. Each column is the outcome, a technique, a common factor or a covariate; "
                "'time' is governed by time=."
            )
        seen.add(name)


def _read_lags(lag: int | Mapping[str, int], predictors: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(lag, int | Mapping):
        raise SpecError(f"lag: expected a whole number of sessions, or a mapping of columns to them, found {lag!r}.")
    given = dict.fromkeys(predictors, lag) if isinstance(lag, int) else {**dict.fromkeys(predictors, 0), **lag}
    for column, value in given.items():
        if column not in predictors:
            raise SpecError(f"lag names {column!r}, which is neither a technique nor a common factor.")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SpecError(f"lag of {column!r}: expected a whole number of sessions, zero or more, found {value!r}.")
    return given


def _interaction(
    entry: Interaction,
    *,
    outcome: str,
    decomposed: tuple[str, ...],
    lags: Mapping[str, int],
    times: tuple[Term, ...],
) -> Term:
    names = tuple(entry.split(":")) if isinstance(entry, str) else tuple(entry) if isinstance(entry, Iterable) else ()
    if len(names) < 2 or not all(isinstance(name, str) and name.strip() for name in names):
        raise SpecError(f"interactions: expected pairs such as ('exposure', 'alliance'), found {entry!r}.")
    if outcome in names:
        raise SpecError(f"interactions: the outcome {outcome!r} cannot predict itself, found {entry!r}.")
    by_label = {t.label: t.factors[0] for t in times}
    parts = [
        (name, by_label[name]) if name in by_label else read_factor(name, decomposed=decomposed, lags=lags)
        for name in names
    ]
    if len({label for label, _ in parts}) < len(parts):
        raise SpecError(f"interactions: {entry!r} names one variable twice.")
    return interaction_term(parts)

"""outcomes(): which techniques and common factors go with which outcome? Several outcomes in one model."""

from collections.abc import Iterable, Mapping, Sequence

from psymech.arguments import mapping
from psymech.errors import SpecError
from psymech.models.common import (
    RandomTerms,
    check_correlated,
    correlates,
    interaction_term,
    intercept,
    names_of,
    part_label,
    read_factor,
    time_terms,
    variable_parts,
)
from psymech.models.outcome_process import pooled_signs, with_process
from psymech.names import INTERCEPT, LEVELS, TIME, Level, Membership, Part
from psymech.spec.model import (
    Decompose,
    Factor,
    Family,
    ModelSpec,
    RandomBlock,
    ResidualKind,
    Response,
    ResponseLevel,
    Role,
    Term,
    TimeKind,
    TimeShape,
    one_of,
    response_label,
)
from psymech.spec.priors import Prior, check_priors

Interaction = str | Sequence[str]
Predictors = Iterable[str] | str | Mapping[str, Iterable[str] | str]

KINDS = ("techniques", "common_factors")
SPLITS = ("observed", "none")
PLACES = ("session", "patient")


def outcomes(
    outcomes: Iterable[str] | str,
    *,
    predictors: Predictors = (),
    techniques: Iterable[str] | str = (),
    common_factors: Iterable[str] | str = (),
    baseline: bool | Mapping[str, str] = True,
    interactions: Iterable[Interaction] = (),
    covariates: Iterable[str] | str = (),
    level: ResponseLevel | Mapping[str, ResponseLevel] = "patient",
    suffixes: tuple[str, str] | None = ("_pre", "_post"),
    random: RandomTerms = None,
    time: TimeKind | TimeShape | None = "linear",
    decompose: Decompose = "observed",
    family: Family = "gaussian",
    residual: ResidualKind | None = None,
    correlated: bool | Mapping[Level, bool] = True,
    process: ModelSpec | None = None,
    slopes: Iterable[str] | str | None = None,
    pool: bool = False,
    higher_is_better: bool | Mapping[str, bool] = True,
    membership: Membership = "current",
    priors: Mapping[str, Prior] | None = None,
) -> ModelSpec:
    r"""Describe several outcomes at once: scores before and after treatment, scores of sessions, or both.

    An outcome measured before and after has one row a patient, with the score after treatment as response r:

    .. math:: y^{post}_{ikr} = \beta_{0r} + \gamma_r\, y^{pre}_{ikr} + \bar x_{ik}'\beta_r + v_{kr} + e_{ikr}

    where the techniques and common factors enter as each patient's mean over the sessions, split into ``x.patient``
    (the patient's mean minus the mean of the therapist's sessions) and ``x.therapist``. An outcome of sessions has the
    terms of :func:`psymech.process`, with ``x.within`` and time besides. The therapists' effects :math:`v_{kr}`
    correlate over the outcomes, and so do the patients' effects on outcomes of sessions.

    Parameters
    ----------
    outcomes
        Names of the outcomes. With `suffixes`, the outcome ``coping`` of patients means the columns ``coping_pre`` and
        ``coping_post``; a name that carries the suffix already means the same.
    predictors
        Columns rated per session: a mapping such as ``{"techniques": [...], "common_factors": [...]}``, or names. Names
        that are in neither `techniques` nor `common_factors` are predictors of no kind: shares count them as
        covariates.
    techniques, common_factors
        The same, by kind.
    baseline
        True adjusts every outcome of patients for its own score before. A mapping of outcome to column says which
        column (needed for an outcome of sessions; outcomes left out of it are not adjusted); False adjusts none.
    interactions
        Pairs such as ``("exposure", "alliance")``. A variable named without a part means its patients' part for an
        outcome of patients, its within-patient part for one of sessions. Parts can be named: ``("exposure.patient",
        "reactance")``; a pair with a part that an outcome does not have is left out there.
    covariates
        Columns taken as given. Covariates of an outcome of patients must be constant within patients.
    level
        ``"patient"`` (scores after treatment, one a patient) or ``"session"``, for all outcomes or by outcome.
    suffixes
        Endings of the columns before and after; None takes names of outcomes as columns, with `baseline` as a mapping.
    random
        Terms that vary over units on top of the outcomes' intercepts, such as ``{"therapist": ["alliance.patient"]}``:
        for every outcome that has the term, or for one as ``"coping_post~alliance.patient"``. None leaves a level out.
    time
        Trend of outcomes of sessions.
    decompose
        ``"observed"`` splits by observed means; ``"none"`` takes predictors of sessions as they are, and for outcomes
        of patients needs predictors that are constant within patients.
    family, correlated, priors
        As in :func:`psymech.growth`; ``"ordinal"`` for one outcome only, as thresholds differ between outcomes.
    membership
        For patients who change therapist (``patient_ids="crossed"``): ``"multiple"`` shares an outcome of patients
        among their therapists, :math:`v = \sum_k w_k v_k` with :math:`w_k` the therapist's share of the patient's
        sessions; ``"to date"`` shares outcomes of sessions as well, see :func:`psymech.growth`. ``"current"`` refuses
        outcomes of such patients.
    process
        A model of sessions from :func:`psymech.process` (or :func:`psymech.growth`) in which slopes vary over patients.
        It becomes part of the model, and each patient's own slope u (deviation from the therapist's patients)
        predicts every outcome, :math:`y_{ikr} = \ldots + b_r u_{ik}`, with all uncertainty about u: one joint model,
        no plug-in of estimated slopes. Needs outcomes of patients; ``loading`` in the posterior holds the b.
    slopes
        Patients' random terms of `process` that predict, such as ``["exposure"]`` or ``["Intercept"]``; all but the
        intercept by default.
    pool
        Let the coefficients of each ingredient over the outcomes share a normal distribution, on the scale of SDs:
        :math:`\pm b_{rj} \sim N(\mu_j, \tau^2), \mu_j \sim N(0, 1), \tau` half-normal(0.5), with the sign that makes
        positive mean better. :func:`psymech.standardized_effects` pools a fit without it in a second stage.
    higher_is_better
        Of the outcomes by name, or of all; used by `pool` only. Those that a mapping leaves out count as True.
    residual
        ``"unstructured"``: the residuals of one patient's (or one session's) outcomes correlate freely; outcomes may be
        missing. ``"iid"``: they are independent given all effects. By default unstructured where it can be: two or more
        Gaussian outcomes at one level. A score after treatment and an outcome of sessions then share the therapist
        only.

    Returns
    -------
    ModelSpec
        Term labels carry the response: ``coping_post~alliance.patient``; with one outcome, no response.

    Raises
    ------
    SpecError
        Where the keywords contradict each other.

    Notes
    -----
    Coefficients of patients' means are biased towards those within patients (observed means hold sampling error, the
    more the fewer the sessions; Luedtke et al. 2008, doi:10.1037/a0012869). Means over a whole treatment also cover
    sessions after the change has happened: a coefficient says what goes together, not what came first.

    References
    ----------
    Snijders & Bosker (2012), Multilevel analysis, 2nd ed., Sage, ch. 16 (multivariate multilevel models).
    Baldwin, Wampold & Imel (2007), doi:10.1037/0022-006X.75.6.842.

    Examples
    --------
    >>> import psymech as psm
    >>> spec = psm.outcomes(["coping", "resources"], techniques=["exposure"], common_factors=["alliance"])
    >>> spec.responses[0].labels
    ('Intercept', 'coping_pre', 'exposure.patient', 'exposure.therapist', 'alliance.patient', 'alliance.therapist')
    """
    one_of(decompose, SPLITS, "decompose")
    kinds = _read_kinds(predictors, techniques, common_factors, needed=process is None)
    places = _read_levels(names_of(outcomes, "outcomes"), level)
    columns = {name: _response_column(name, place, suffixes) for name, place in places.items()}
    _refuse_twice(columns)
    before = _read_baseline(baseline, columns, places, suffixes)
    given = names_of(covariates, "covariates")
    _refuse_double_roles(columns, before, kinds, given)
    form = time if isinstance(time, TimeShape) or time is None else TimeShape(time)
    form = form if "session" in places.values() else None
    pairs = [_names_in(entry) for entry in interactions]
    first = 1 if family == "ordinal" else 0  # the thresholds take the place of the intercept
    responses = tuple(
        Response(
            columns[name],
            _terms(
                place,
                kinds=kinds,
                baseline=before.get(name),
                covariates=given,
                interactions=pairs,
                time=form,
                decompose=decompose,
            )[first:],
            family,
            place,
        )
        for name, place in places.items()
    )
    _refuse_unused(pairs, responses, decompose)
    if random is not None:
        mapping(random, "random", "{'therapist': ['alliance']}")
    check_correlated(correlated)
    blocks, without = _blocks(random, responses, correlated)
    spec = ModelSpec(
        kind="outcomes",
        responses=responses,
        random=blocks,
        without=without,
        residual=residual or _residual(places, family),
        time=form,
        decompose=decompose,
        priors=check_priors(priors),
        roles=tuple((column, "baseline") for column in dict.fromkeys(before.values())),
        membership=membership,
        pooled=pooled_signs(columns, pool, higher_is_better),
    )
    if slopes is not None and process is None:
        raise SpecError("slopes names random terms of process, and there is none. Give process=psymech.process(...).")
    return spec if process is None else with_process(spec, process, slopes)


def _read_kinds(
    predictors: Predictors,
    techniques: Iterable[str] | str,
    common_factors: Iterable[str] | str,
    *,
    needed: bool,
) -> dict[str, Role]:
    """Return the role of every predictor, in the order given."""
    by_kind = {
        "techniques": names_of(techniques, "techniques"),
        "common_factors": names_of(common_factors, "common_factors"),
    }
    if isinstance(predictors, Mapping):
        for kind, members in predictors.items():
            one_of(kind, KINDS, "predictors")
            by_kind[kind] = names_of((*by_kind[kind], *names_of(members, f"predictors[{kind!r}]")), kind)
        listed: tuple[str, ...] = ()
    else:
        listed = names_of(predictors, "predictors")
    both = sorted(set(by_kind["techniques"]) & set(by_kind["common_factors"]))
    if both:
        raise SpecError(f"{both[0]!r} is named as a technique and as a common factor. Choose one.")
    roles: dict[str, Role] = {}
    for name in dict.fromkeys((*listed, *by_kind["techniques"], *by_kind["common_factors"])):
        roles[name] = (
            "technique"
            if name in by_kind["techniques"]
            else "common_factor"
            if name in by_kind["common_factors"]
            else "covariate"
        )
    if needed and not roles:
        raise SpecError(
            "predictors: name at least one technique or common factor, e.g. predictors={'techniques': ['exposure']}."
        )
    return roles


def _read_levels(
    names: tuple[str, ...], level: ResponseLevel | Mapping[str, ResponseLevel]
) -> dict[str, ResponseLevel]:
    if not names:
        raise SpecError("outcomes: expected at least one outcome, found none.")
    given: Mapping[str, ResponseLevel] = dict.fromkeys(names, level) if isinstance(level, str) else level
    for name, place in given.items():
        if name not in names:
            raise SpecError(f"level names {name!r}, which is not among the outcomes {', '.join(names)}.")
        one_of(place, PLACES, f"level of {name!r}")
    return {name: given.get(name, "patient") for name in names}


def _residual(places: Mapping[str, ResponseLevel], family: Family) -> ResidualKind:
    return "unstructured" if len(places) > 1 and len(set(places.values())) == 1 and family == "gaussian" else "iid"


def _response_column(name: str, place: ResponseLevel, suffixes: tuple[str, str] | None) -> str:
    if place == "session" or suffixes is None or name.endswith(suffixes[1]):
        return name
    return name + suffixes[1]


def _refuse_twice(columns: Mapping[str, str]) -> None:
    twice = [column for column in columns.values() if list(columns.values()).count(column) > 1]
    if twice:
        raise SpecError(f"outcomes: two names mean the column {twice[0]!r}. Name each outcome once.")


def _read_baseline(
    baseline: bool | Mapping[str, str],
    columns: Mapping[str, str],
    places: Mapping[str, ResponseLevel],
    suffixes: tuple[str, str] | None,
) -> dict[str, str]:
    """Return the column of the score before, by outcome."""
    if isinstance(baseline, Mapping):
        for name in baseline:
            if name not in columns:
                raise SpecError(f"baseline names {name!r}, which is not among the outcomes {', '.join(columns)}.")
        return dict(baseline)
    if not baseline:
        return {}
    patients = [name for name, place in places.items() if place == "patient"]
    if suffixes is None:
        if not patients:
            return {}
        raise SpecError(
            "baseline=True needs suffixes=('_pre', '_post') to find the scores before. Name them with "
            f"baseline={{{patients[0]!r}: ...}}, or give baseline=False."
        )
    return {name: columns[name].removesuffix(suffixes[1]) + suffixes[0] for name in patients}


def _refuse_double_roles(
    columns: Mapping[str, str], before: Mapping[str, str], kinds: Mapping[str, Role], covariates: tuple[str, ...]
) -> None:
    for name in kinds:
        if name in columns.values() or name in before.values() or name in covariates or name == TIME:
            raise SpecError(
                f"{name!r} has two roles. Each column is an outcome, a score before, a predictor or a covariate."
            )
    for name in covariates:
        if name in columns.values() or name in before.values() or name == TIME:
            raise SpecError(
                f"{name!r} has two roles. Each column is an outcome, a score before, a predictor or a covariate."
            )


def _terms(
    place: ResponseLevel,
    *,
    kinds: Mapping[str, Role],
    baseline: str | None,
    covariates: tuple[str, ...],
    interactions: Sequence[tuple[str, ...]],
    time: TimeShape | None,
    decompose: Decompose,
) -> tuple[Term, ...]:
    decomposed = tuple(kinds) if decompose == "observed" else ()
    parts: list[Part] = [part for part in variable_parts(bool(decomposed)) if part != "within" or place == "session"]
    times = time_terms(time) if place == "session" else ()
    terms = [intercept(), *times]
    if baseline is not None:
        terms.append(Term(baseline, (Factor(baseline),), "covariate"))
    terms += [
        Term(part_label(name, part), (Factor(name, part),), role) for name, role in kinds.items() for part in parts
    ]
    terms += [Term(name, (Factor(name),), "covariate") for name in covariates]
    by_label = {t.label: t.factors[0] for t in times}
    for names in interactions:
        read = [
            (name, by_label[name]) if name in by_label else _factor(name, place, decomposed, by_label) for name in names
        ]
        if len({label for label, _ in read}) < len(read):
            raise SpecError(f"interactions: {names!r} names one variable twice.")
        fits = place == "session" or all(f.part != "within" and f.column != TIME for _, f in read)
        if fits:
            terms.append(interaction_term(read))
    return tuple(terms)


def _factor(
    name: str, place: ResponseLevel, decomposed: Sequence[str], times: Mapping[str, Factor]
) -> tuple[str, Factor]:
    if place != "session" and name in decomposed:
        return f"{name}.patient", Factor(name, "patient")
    return read_factor(name, decomposed=decomposed, lags={})


def _names_in(entry: Interaction) -> tuple[str, ...]:
    names = tuple(entry.split(":")) if isinstance(entry, str) else tuple(entry)
    if len(names) < 2:
        raise SpecError(f"interactions: expected pairs such as ('exposure', 'alliance'), found {entry!r}.")
    return names


def _refuse_unused(pairs: Sequence[tuple[str, ...]], responses: Sequence[Response], decompose: Decompose) -> None:
    """A product that no outcome can have is a mistake, not a wish."""
    for names in pairs:
        fits = any(
            r.level == "session" or not any(n.endswith(".within") or n.partition(".")[0] == TIME for n in names)
            for r in responses
        )
        if not fits:
            raise SpecError(
                f"interactions: {':'.join(names)!r} changes within patients, and every outcome has one score a "
                f"patient. "
                "Name the patients' part, e.g. 'exposure.patient'."
            )


def _blocks(
    random: RandomTerms, responses: Sequence[Response], correlated: bool | Mapping[Level, bool]
) -> tuple[tuple[RandomBlock, ...], tuple[Level, ...]]:
    """Random blocks of the levels that `random` names; others get the outcomes' intercepts once the data are known."""
    requested = dict(random or {})
    for level in requested:
        if level not in LEVELS:
            raise SpecError(f"random: expected the levels {', '.join(LEVELS)}, found {level!r}.")
    without: list[Level] = [level for level in LEVELS if level in requested and requested[level] is None]
    blocks = []
    for level in LEVELS:
        names = requested.get(level)
        if names is None:
            continue
        below = [r for r in responses if r.level == "session" or LEVELS.index(r.level) < LEVELS.index(level)]
        if not below:
            raise SpecError(
                f"random: every outcome has one score a {level}, so nothing can vary over {level}s beside the "
                f"residual. "
                "Name a level above."
            )
        chosen = [_label(responses, r, INTERCEPT) for r in below]
        for name in names_of(names, f"random[{level!r}]"):
            found = [label for label in _random_labels(name, below, responses) if label not in chosen]
            chosen += found
        joint = correlates(correlated, level)
        blocks.append(RandomBlock(level, tuple(chosen), correlated=joint))
    if correlated is not True and not blocks:
        raise SpecError(
            "correlated: name the levels whose effects are not to correlate in random as well, e.g. "
            "random={'therapist': []}, correlated={'therapist': False}."
        )
    return tuple(blocks), tuple(without)


def _label(responses: Sequence[Response], response: Response, label: str) -> str:
    return label if len(responses) == 1 else response_label(response.column, label)


def _random_labels(name: str, below: Sequence[Response], responses: Sequence[Response]) -> list[str]:
    """Turn a name in `random` into labels of every outcome that has the term."""
    found: list[str] = []
    for response in below:
        lowest = "within" if response.level == "session" else "patient"
        times = [t.label for t in response.terms if t.role == "time"] if name == TIME else []
        wanted = times or [name, f"{name}.{lowest}"]
        own = next(([w] for w in wanted if w in response.labels), [])
        for label in times or own:
            found.append(_label(responses, response, label))
        found += [name for label in response.labels if name == response_label(response.column, label)]
    if not found:
        known = dict.fromkeys(label for r in below for label in r.labels if label != INTERCEPT)
        if name == INTERCEPT:
            return []
        raise SpecError(f"random: {name!r} is not a fixed effect of any outcome. Name one of: {', '.join(known)}.")
    return found

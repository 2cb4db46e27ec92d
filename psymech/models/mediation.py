"""mediation(): does a technique work through a common factor? Paths from treatment over mediators to the outcome,
level by level.
"""

from collections.abc import Iterable, Mapping, Sequence

from psymech.arguments import mapping
from psymech.errors import SpecError, UnavailableError
from psymech.models.common import (
    check_correlated,
    correlates,
    intercept,
    names_of,
    part_label,
    time_terms,
    variable_parts,
)
from psymech.models.latent_equations import LatentEquation, latent_responses
from psymech.names import INTERCEPT, LEVELS, TIME, Level
from psymech.spec.model import (
    DECOMPOSITIONS,
    Decompose,
    Factor,
    ModelSpec,
    RandomBlock,
    Response,
    Role,
    Term,
    TimeKind,
    TimeShape,
    one_of,
    response_label,
)
from psymech.spec.priors import Prior, check_priors

PATHS = ("a", "b", "c", "d")
DEFAULT_RANDOM: Mapping[Level, Sequence[str] | None] = {"patient": ("a", "b", "c")}
Names = Iterable[str] | str


def mediation(
    outcome: Names,
    *,
    treatment: Names,
    mediators: Names,
    random: Mapping[Level, Sequence[str] | None] | None = None,
    serial: bool = False,
    lag: int | Mapping[str, int] = 0,
    moderators: Mapping[str, Names] | None = None,
    covariates: Names = (),
    autoregressive: bool | Names = False,
    time: TimeKind | TimeShape | None = "linear",
    decompose: Decompose = "observed",
    correlated: bool | Mapping[Level, bool] = True,
    priors: Mapping[str, Prior] | None = None,
) -> ModelSpec:
    r"""Describe a mediation model of sessions in patients in therapists.

    With treatment x, mediator m and outcome y, each predictor split by observed means (W: within patients, P: between
    patients of a therapist, T: between therapists),

    .. math::

        m_{tik} &= \alpha + (a + a^u_{ik} + a^v_k)\, x^W_{tik} + a_P x^P_{ik} + a_T x^T_k + u^m_{ik} + v^m_k +
        e^m_{tik}\\ y_{tik} &= \gamma + (b + b^u_{ik} + b^v_k)\, m^W_{tik} + b_P m^P_{ik} + b_T m^T_k
                  + (c' + c^u_{ik} + c^v_k)\, x^W_{tik} + c'_P x^P_{ik} + c'_T x^T_k + u^y_{ik} + v^y_k + e^y_{tik}

    as one model of stacked rows, so that the random paths of both equations correlate at each level (Bauer, Preacher
    & Gil 2006). Residuals of the two equations do not correlate, at any level: that is the assumption of no
    unmeasured confounder of mediator and outcome, which :func:`psymech.mediation_sensitivity` lets go of.
    :func:`psymech.indirect_effects` gives the indirect effects of each level with the covariance of random a and b.

    Where a variable lives (per session, patient or therapist) is read off the data. Only the parts that exist there
    enter: a patient's trait has no within part (2-1-1, 2-2-1), a score after treatment is one row a patient and takes
    the patients' means (1-1-2), a therapist's trait acts between therapists (3-1-1). Missing values of an outcome or
    mediator leave out that row of that response only, not the session (missing at random given the model).

    Parameters
    ----------
    outcome, treatment, mediators
        Columns; several of each are possible. Several mediators act in parallel, or in series with `serial`.
    random
        Paths that vary, by level, on top of the intercepts: ``{"patient": ("a", "b", "c"), "therapist": ("a",
        "b")}``, with ``a`` treatment to mediator, ``b`` mediator to outcome, ``c`` treatment to outcome, ``d``
        mediator to mediator; or labels such as ``"phq9~alliance.within"``. ``None`` leaves a level out. Default: a, b
        and c vary over patients, intercepts over therapists.
    serial
        Each mediator predicts the mediators named after it.
    lag
        Sessions by which the predictors of the outcome (paths b and c) precede it; the treatment and the mediator are
        taken from the same session. Or by path: ``{"a": 1, "b": 1, "c": 2}``. Lags stop at a patient's first session
        and at gaps.
    moderators
        Columns that moderate a path, ``{"a": "reactance"}``: the column itself and its product with the path's
        predictor (the lowest part that exists) enter the equations of that path.
    covariates
        Columns taken as given, in all equations.
    autoregressive
        Add a response's own last value: True for the outcomes, or columns (outcomes, mediators; with latent means also
        treatments). Uncentred; with latent means its deviation from the latent mean.
    time
        Shape of the trend in all equations of sessions, or None to keep the trend in.
    decompose
        ``"observed"``; ``"none"`` takes predictors as given; ``"latent"``: treatment, mediators and outcome are all
        responses, with latent means of patients and therapists, and the paths between them are read from their
        covariances, which removes the bias of observed means (Lüdtke et al. 2008). Within paths act on deviations
        from the latent means. By default they are the same for all patients; name those that vary in `random`.
        Covariates and moderators enter every equation.
    correlated, priors
        As in :func:`psymech.growth`.

    Returns
    -------
    ModelSpec

    Raises
    ------
    SpecError
        Where the keywords contradict each other.
    UnavailableError
        For random trends with ``decompose="latent"``.

    References
    ----------
    Bauer, Preacher & Gil (2006), doi:10.1037/1082-989X.11.2.142; Preacher, Zyphur & Zhang (2010),
    doi:10.1037/a0020141; Lüdtke et al. (2008), doi:10.1037/a0012869; Zhang, Zyphur & Preacher (2009),
    doi:10.1177/1094428108327450.

    Examples
    --------
    >>> import psymech as psm
    >>> spec = psm.mediation("phq9", treatment="exposure", mediators="alliance", lag=1)
    >>> spec.responses[1].labels[:3]
    ('Intercept', 'time', 'exposure.within')
    """
    one_of(decompose, DECOMPOSITIONS, "decompose")
    outcomes = names_of(outcome, "outcome")
    treatments = names_of(treatment, "treatment")
    middle = names_of(mediators, "mediators")
    fixed = names_of(covariates, "covariates")
    if moderators is not None:
        mapping(moderators, "moderators", "{'a': ['severity']}")
    if random is not None:
        mapping(random, "random", "{'patient': ['a', 'b']}")
    check_correlated(correlated)
    moderating = {path: names_of(names, f"moderators[{path!r}]") for path, names in (moderators or {}).items()}
    _refuse_double_roles(outcomes, treatments, middle, fixed)
    for label, group in (("outcome", outcomes), ("treatment", treatments), ("mediators", middle)):
        if not group:
            raise SpecError(f"{label}: expected at least one column, found none.")
    _known_paths(moderating, "moderators")
    if serial and len(middle) < 2:
        raise SpecError("serial=True needs at least two mediators, in their order.")
    form = time if isinstance(time, TimeShape) or time is None else TimeShape(time)
    roles = (
        *((name, "treatment") for name in treatments),
        *((name, "serial_mediator" if serial else "mediator") for name in middle),
        *((name, "outcome") for name in outcomes),
    )
    lags = _read_lags(lag)
    own_lag = _read_own_lag(autoregressive, treatments if decompose == "latent" else (), middle, outcomes)
    equations = [_Equation(each, {}) for each in treatments if decompose == "latent"]
    equations += [
        _Equation(each, {"a": treatments, "d": middle[:index] if serial else ()}) for index, each in enumerate(middle)
    ]
    equations += [_Equation(each, {"c": treatments, "b": middle}) for each in outcomes]
    split = decompose != "none"
    if decompose == "latent":
        _refuse_random_trends(random)
        responses = latent_responses(
            [LatentEquation(e.name, e.predictors) for e in equations],
            covariates=fixed,
            moderators=moderating,
            lags=lags,
            own_lag=own_lag,
            form=form,
        )
    else:
        responses = tuple(
            e.response(form, fixed, moderating, lags, split=split, own_lag=e.name in own_lag) for e in equations
        )
    chosen = {} if random is None and decompose == "latent" else DEFAULT_RANDOM if random is None else random
    blocks, without = _blocks(chosen, equations, responses, split=split, correlated=correlated)
    return ModelSpec(
        kind="mediation",
        responses=responses,
        random=blocks,
        without=without,
        time=form,
        decompose=decompose,
        priors=check_priors(priors),
        roles=roles,
        uncorrelated=_uncorrelated(equations) if decompose == "observed" else (),
    )


class _Equation:
    """One response with its predictors by path."""

    def __init__(self, response: str, predictors: Mapping[str, tuple[str, ...]]) -> None:
        self.name = response
        self.predictors = {path: names for path, names in predictors.items() if names}

    def response(
        self,
        form: TimeShape | None,
        covariates: tuple[str, ...],
        moderators: Mapping[str, tuple[str, ...]],
        lags: Mapping[str, int],
        *,
        split: bool,
        own_lag: bool,
    ) -> Response:
        """Return the response with all its terms."""
        terms: list[Term] = [intercept(), *time_terms(form)]
        if own_lag:
            terms.append(Term(f"{self.name}.lag1", (Factor(self.name, "raw", 1),), "autoregressive"))
        products: list[Term] = []
        shifting: list[str] = []
        for path, columns in self.predictors.items():
            role: Role = "technique" if path in ("a", "c") else "common_factor"
            for column in columns:
                for part in variable_parts(split):
                    factor = Factor(column, part, lags[path] if part in ("within", "raw") else 0)
                    label = part_label(column, part)
                    terms.append(Term(label, (factor,), role))
                    products += [
                        Term(f"{label}:{w}", (factor, Factor(w)), "interaction") for w in moderators.get(path, ())
                    ]
            shifting += [w for w in moderators.get(path, ()) if w not in (*shifting, *covariates)]
        terms += [Term(name, (Factor(name),), "moderator") for name in shifting]
        terms += [Term(name, (Factor(name),), "covariate") for name in covariates]
        return Response(self.name, (*terms, *products), level="auto")


def _blocks(
    random: Mapping[Level, Sequence[str] | None],
    equations: Sequence[_Equation],
    responses: tuple[Response, ...],
    *,
    split: bool,
    correlated: bool | Mapping[Level, bool],
) -> tuple[tuple[RandomBlock, ...], tuple[Level, ...]]:
    blocks: list[RandomBlock] = []
    without: list[Level] = []
    intercepts = [response_label(r.column, INTERCEPT) for r in responses]
    known = [response_label(r.column, label) for r in responses for label in r.labels]
    for level, names in random.items():
        if level not in LEVELS:
            raise SpecError(f"random: expected the levels {', '.join(LEVELS)}, found {level!r}.")
        if names is None:
            without.append(level)
            continue
        labels = list(intercepts)
        for name in names_of(names, f"random[{level!r}]"):
            labels += [label for label in _labels_of(name, equations, known, level, split=split) if label not in labels]
        block_correlates = correlates(correlated, level)
        blocks.append(RandomBlock(level, tuple(labels), correlated=block_correlates))
    return tuple(sorted(blocks, key=lambda b: LEVELS.index(b.level))), tuple(without)


def _labels_of(name: str, equations: Sequence[_Equation], known: list[str], level: str, *, split: bool) -> list[str]:
    path = "c" if name == "c'" else name
    if path in PATHS:
        found = [
            response_label(e.name, part_label(column, "within" if split else "raw"))
            for e in equations
            for column in e.predictors.get(path, ())
        ]
        if not found:
            raise SpecError(f"random[{level!r}]: the model has no path {name!r} (mediators in series have d).")
        return found
    if name in known:
        return [name]
    if name == TIME:
        found = [label for label in known if label.endswith(f"~{TIME}")]
        if found:
            return found
    raise SpecError(
        f"random[{level!r}]: expected the paths {', '.join(PATHS)} or a label such as {known[-1]!r}, found {name!r}."
    )


def _uncorrelated(equations: Sequence[_Equation]) -> tuple[tuple[str, str], ...]:
    """Pairs of intercepts of which the second's equation holds the unit means of the first: not identified together."""
    return tuple(
        (response_label(column, INTERCEPT), response_label(e.name, INTERCEPT))
        for e in equations
        for path in ("b", "d")
        for column in e.predictors.get(path, ())
    )


def _read_lags(lag: int | Mapping[str, int]) -> dict[str, int]:
    if isinstance(lag, Mapping):
        _known_paths(lag, "lag")
        given = {**dict.fromkeys(PATHS, 0), **{"c" if path == "c'" else path: value for path, value in lag.items()}}
    else:
        given = {"a": 0, "b": lag, "c": lag, "d": 0}
    for path, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SpecError(
                f"lag of path {path!r}: expected a whole number of sessions, zero or more, found {value!r}."
            )
    return given


def _known_paths(given: Mapping[str, object], argument: str) -> None:
    for path in given:
        if path not in (*PATHS, "c'"):
            raise SpecError(f"{argument}: expected the paths {', '.join(PATHS)}, found {path!r}.")


def _refuse_double_roles(*groups: tuple[str, ...]) -> None:
    seen: set[str] = {TIME}
    for name in (name for group in groups for name in group):
        if name in seen:
            raise SpecError(
                f"{name!r} has two roles. Each column is an outcome, a treatment, a mediator or a covariate; 'time' is "
                "governed by time=."
            )
        seen.add(name)


def _refuse_random_trends(random: Mapping[Level, Sequence[str] | None] | None) -> None:
    named = (name for names in (random or {}).values() for name in names or ())
    if any(name == TIME or name.split("~")[-1].startswith(TIME) for name in named):
        raise UnavailableError(
            "decompose='latent' has no random trends: the means of patients would then differ from session to session, "
            "and so would the paths between them. Name paths in random, or use decompose='observed'."
        )


def _read_own_lag(
    given: bool | Names, treatments: tuple[str, ...], mediators: tuple[str, ...], outcomes: tuple[str, ...]
) -> tuple[str, ...]:
    if isinstance(given, bool):
        return outcomes if given else ()
    chosen = names_of(given, "autoregressive")
    known = (*treatments, *mediators, *outcomes)
    for name in chosen:
        if name not in known:
            raise SpecError(f"autoregressive: expected True or columns among {', '.join(known)}, found {name!r}.")
    return chosen

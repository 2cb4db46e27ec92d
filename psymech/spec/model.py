"""ModelSpec: what is modelled, as a frozen value.

A response has terms; a term is a product of factors; a factor is one column: a variable's part, perhaps lagged, or
one basis function of time. Random blocks name the terms that vary over the units of a level.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from psymech.arguments import is_whole
from psymech.errors import SpecError
from psymech.names import INTERCEPT, LEVELS, MEMBERSHIPS, TIME, Level, Membership, Part
from psymech.spec import priors as _priors

Family = Literal["gaussian", "student", "bernoulli", "ordinal"]
ResidualKind = Literal["iid", "ar1", "unstructured"]
ResponseLevel = Literal[
    "session", "patient", "therapist", "clinic", "auto"
]  # auto: where the column varies in the data
TimeKind = Literal["linear", "log", "quadratic", "piecewise", "spline"]
Decompose = Literal["observed", "latent", "none"]
Role = Literal[
    "intercept",
    "time",
    "technique",
    "common_factor",
    "covariate",
    "moderator",
    "interaction",
    "autoregressive",
    "residual",  # of another response of the same session
]

FAMILIES: tuple[Family, ...] = get_args(Family)
RESIDUALS: tuple[ResidualKind, ...] = get_args(ResidualKind)
RESIDUALS_OF_ONE = tuple(kind for kind in RESIDUALS if kind != "unstructured")  # it correlates several responses
RESPONSE_LEVELS: tuple[ResponseLevel, ...] = get_args(ResponseLevel)
TIME_KINDS: tuple[TimeKind, ...] = get_args(TimeKind)
DECOMPOSITIONS: tuple[Decompose, ...] = get_args(Decompose)
MIN_DF = 2
THERAPIST: Level = "therapist"  # as residual_by: each therapist has a residual SD


def one_of(value: object, allowed: tuple[str, ...], argument: str) -> None:
    """Raise SpecError where an option is not among the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise SpecError(f"{argument}: expected one of {', '.join(map(repr, allowed))}, found {value!r}.")


@dataclass(frozen=True, slots=True)
class TimeShape:
    """How time enters: the kind of basis, its knots (piecewise) or its degrees of freedom (spline)."""

    kind: TimeKind = "linear"
    knots: tuple[float, ...] = ()
    df: int = 3

    def __post_init__(self) -> None:
        one_of(self.kind, TIME_KINDS, "shape")
        if self.kind == "piecewise" and not self.knots:
            raise SpecError("shape='piecewise' needs knots=(...), the times at which the slope may change.")
        if self.kind != "piecewise" and self.knots:
            raise SpecError(f"knots belong to shape='piecewise', found shape={self.kind!r}.")
        if list(self.knots) != sorted(set(self.knots)):
            raise SpecError(f"knots must increase strictly, found {self.knots}.")
        if self.kind == "spline" and not (is_whole(self.df) and self.df >= MIN_DF):
            raise SpecError(f"shape='spline' needs a whole number df >= 2, found {self.df!r}.")

    @property
    def n_columns(self) -> int:
        """Number of basis columns, the intercept not counted."""
        return {"quadratic": 2, "piecewise": 1 + len(self.knots), "spline": self.df}.get(self.kind, 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """Term labels of the basis columns: ``time``, and what follows it."""
        match self.kind:
            case "quadratic":
                return ("time", "time^2")
            case "piecewise":
                return ("time", *(f"time.after({knot:g})" for knot in self.knots))
            case "spline":
                return tuple(f"time.spline{i + 1}" for i in range(self.df))
            case _:
                return ("time",)


@dataclass(frozen=True, slots=True)
class Factor:
    """One column: part of a variable, `lag` sessions earlier; or basis function number `basis` of time."""

    column: str
    part: Part = "raw"
    lag: int = 0
    basis: int | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A fixed-effect column: the product of its factors (none: the intercept)."""

    label: str
    factors: tuple[Factor, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class Response:
    """One outcome with its family, its terms, and the level at which it has one value a unit."""

    column: str
    terms: tuple[Term, ...]
    family: Family = "gaussian"
    level: ResponseLevel = "session"

    def __post_init__(self) -> None:
        one_of(self.family, FAMILIES, "family")
        one_of(self.level, RESPONSE_LEVELS, "level of a response")
        _refuse_terms_below(self)
        labels = [term.label for term in self.terms]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise SpecError(
                f"The model names the term {twice[0]!r} more than once. Name each variable in one role only."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """Term labels in design order."""
        return tuple(term.label for term in self.terms)


def _refuse_terms_below(response: Response) -> None:
    """A unit's response has no columns that change within the unit."""
    if response.level in ("session", "auto"):
        return
    above = LEVELS[LEVELS.index(response.level) :]
    for term in response.terms:
        for factor in term.factors:
            if factor.lag or factor.column == TIME or (factor.part != "raw" and factor.part not in above):
                raise SpecError(
                    f"{response.column!r} has one value a {response.level}; its term {term.label!r} changes within a "
                    f"{response.level}. Use parts of variables at the level of {' or '.join(f'{a}s' for a in above)}."
                )


@dataclass(frozen=True, slots=True)
class RandomBlock:
    """Terms that vary over the units of one level, with one covariance; the intercept is named like any other."""

    level: Level
    terms: tuple[str, ...]
    correlated: bool = True
    centred: bool | None = None

    def __post_init__(self) -> None:
        one_of(self.level, LEVELS, "level")
        if not self.terms:
            raise SpecError(f"The random block of level {self.level!r} has no terms. Use None to leave the level out.")


def zero_pairs(terms: tuple[str, ...], pairs: Iterable[tuple[str, str]]) -> NDArray[np.bool_]:
    """(q, q): True below the diagonal at each pair of terms."""
    zero = np.zeros((len(terms), len(terms)), dtype=bool)
    for earlier, later in pairs:
        if earlier in terms and later in terms:
            zero[terms.index(later), terms.index(earlier)] = True
    return zero


def _refuse_half_zeros(block: RandomBlock, pairs: Iterable[tuple[str, str]]) -> None:
    """Zero partial correlations are zero correlations only where the terms before do not bring them back."""
    zero = zero_pairs(block.terms, pairs)
    for i, j in zip(*np.nonzero(zero), strict=True):
        if i < j or not all(zero[i, before] or zero[j, before] for before in range(j)):
            raise SpecError(
                f"The random block of level {block.level!r} cannot keep {block.terms[j]!r} and {block.terms[i]!r} "
                "uncorrelated in "
                "this order: put the terms that are uncorrelated with others first, the mediators' before the "
                "outcome's."
            )


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as a value: responses, random blocks, residual, priors.

    Build one with :func:`psymech.growth`, :func:`psymech.process`, ...; not by hand.
    `without` lists levels that must have no random effects although the data name them. `roles` says what columns are
    to the question (treatment, mediator, outcome). `uncorrelated` lists pairs of random terms, the earlier first,
    whose correlation is zero by assumption at every level: the intercepts of a mediator and an outcome that the
    mediator's unit means predict. `residual_by` names the column whose values have a residual SD each, or is
    ``"therapist"``; `therapist_in` names the 0/1 column of patients who have a therapist (partially nested designs).
    `loadings` lists outcomes of patients with the patients' random terms that predict them; `pooled` the responses
    whose coefficients are pooled, with 1 or, where lower is better, -1.
    `membership` says to whom a row belongs whose patient changes therapist.
    """

    kind: str
    responses: tuple[Response, ...]
    random: tuple[RandomBlock, ...]
    without: tuple[Level, ...] = ()
    residual: ResidualKind = "iid"
    time: TimeShape | None = None
    decompose: Decompose = "none"
    priors: tuple[tuple[str, _priors.Prior], ...] = ()
    roles: tuple[tuple[str, str], ...] = field(default=())
    uncorrelated: tuple[tuple[str, str], ...] = ()
    residual_by: str | None = None
    therapist_in: str | None = None
    loadings: tuple[tuple[str, str], ...] = ()
    pooled: tuple[tuple[str, int], ...] = ()
    membership: Membership = "current"

    def __post_init__(self) -> None:
        one_of(self.residual, RESIDUALS if len(self.responses) > 1 else RESIDUALS_OF_ONE, "residual")
        one_of(self.decompose, DECOMPOSITIONS, "decompose")
        columns = [response.column for response in self.responses]
        if len(set(columns)) < len(columns):
            raise SpecError(f"Each response is named once, found {', '.join(columns)}.")
        known = self.random_labels
        for block in self.random:
            for label in block.terms:
                if label not in known:
                    raise SpecError(
                        f"random slope {label!r} at level {block.level!r} is not a fixed effect of this model. "
                        f"Name one of: {', '.join(known)}."
                    )
                self._refuse_at_own_level(label, block.level)
            _refuse_half_zeros(block, self.uncorrelated)
            if len(set(block.terms)) < len(block.terms):
                raise SpecError(
                    f"The random block of level {block.level!r} names a term twice: {', '.join(block.terms)}."
                )
        levels = [block.level for block in self.random]
        if len(set(levels)) < len(levels):
            raise SpecError("Each level takes one random block.")
        both = sorted(set(levels) & set(self.without))
        if both:
            raise SpecError(f"Level {both[0]!r} is both left out and given random terms.")
        families = {response.family for response in self.responses}
        if len(families) > 1:
            raise SpecError(f"All responses of a model are of one family, found {', '.join(sorted(families))}.")
        if "ordinal" in families and len(self.responses) > 1:
            raise SpecError(
                f"family='ordinal' is for models of one outcome, whose thresholds it has, found {', '.join(columns)}. "
                "Fit one model an outcome."
            )
        if self.residual != "iid" and families != {"gaussian"}:
            raise SpecError(f"residual={self.residual!r} needs family='gaussian', found {sorted(families)}.")
        if self.residual_by is not None:
            _refuse_residual_by(self)
        if self.membership != "current":
            _refuse_membership(self)

        _refuse_joined(self)

    def _refuse_at_own_level(self, label: str, level: Level) -> None:
        for response in self.responses:
            own = (
                response.labels
                if len(self.responses) == 1
                else [response_label(response.column, t) for t in response.labels]
            )
            if label in own and response.level in LEVELS and LEVELS.index(response.level) >= LEVELS.index(level):
                raise SpecError(
                    f"{label!r} cannot vary over {level}s: {response.column!r} has one value a {response.level}, so "
                    "its residual "
                    f"is all that differs there. Name it at a level above."
                )

    def default_random(self, level: Level) -> tuple[str, ...]:
        """Labels that vary over a level that has no random block: the intercepts of the responses observed below it."""
        below = [r for r in self.responses if r.level not in LEVELS or LEVELS.index(r.level) < LEVELS.index(level)]
        return tuple(response_label(r.column, INTERCEPT) if len(self.responses) > 1 else INTERCEPT for r in below)

    @property
    def family(self) -> Family:
        """Family of the first response."""
        return self.responses[0].family

    @property
    def outcome(self) -> str:
        """Column of the response with the role of the outcome, else of the first response."""
        return next((column for column, role in self.roles if role == "outcome"), self.responses[0].column)

    @property
    def random_labels(self) -> tuple[str, ...]:
        """Labels that may vary: with several responses each label carries its response."""
        if len(self.responses) == 1:
            labels = self.responses[0].labels
            return labels if INTERCEPT in labels else (INTERCEPT, *labels)
        return tuple(response_label(r.column, label) for r in self.responses for label in r.labels)

    def block(self, level: Level) -> RandomBlock | None:
        """Return the random block of a level, or None."""
        return next((block for block in self.random if block.level == level), None)

    def to_json(self) -> str:
        """Return the specification as JSON text; :func:`from_json` is the inverse."""
        values = asdict(self)
        values["priors"] = [[key, _priors.to_dict(prior)] for key, prior in self.priors]
        values["outcome"] = self.outcome
        values["family"] = self.family
        return json.dumps(values, ensure_ascii=False)


def _refuse_residual_by(spec: ModelSpec) -> None:
    which = f"residual_by={spec.residual_by!r}"
    if not isinstance(spec.residual_by, str):
        raise SpecError(f"{which} names no column. Name a column of groups, or 'therapist'.")
    if len(spec.responses) > 1:
        raise SpecError(f"{which} is for models of one outcome, found {len(spec.responses)}.")
    if spec.family not in ("gaussian", "student"):
        raise SpecError(f"{which} needs family='gaussian' or 'student': {spec.family!r} has no residual SD.")
    if spec.residual != "iid":
        raise SpecError(f"{which} needs residual='iid', found {spec.residual!r}.")
    if spec.residual_by == spec.outcome:
        raise SpecError(f"{which} names the outcome itself. Name a column of groups, or 'therapist'.")


def _refuse_membership(spec: ModelSpec) -> None:
    which = f"membership={spec.membership!r}"
    one_of(spec.membership, MEMBERSHIPS, "membership")
    if THERAPIST in spec.without:
        raise SpecError(f"{which} shares rows among therapists, but the level is left out with None.")
    if spec.residual_by == THERAPIST:
        raise SpecError(
            f"{which} is not available together with residual_by='therapist': a session's expected outcome would be "
            "shared by therapists, but its residual SD one therapist's. Choose one."
        )
    if spec.membership == "multiple" and all(response.level == "session" for response in spec.responses):
        raise SpecError(
            f"{which} is for outcomes with one value a patient. For outcomes of sessions use membership='to date': "
            "shares of the sessions up to and including each one."
        )


def _refuse_joined(spec: ModelSpec) -> None:
    columns = {r.column: r for r in spec.responses}
    for response, label in spec.loadings:
        if response not in columns or columns[response].level != "patient" or label not in spec.random_labels:
            raise SpecError(
                f"loadings: {label!r} cannot predict {response!r}: expected a random term and an outcome of patients."
            )
    for response, sign in spec.pooled:
        if response not in columns or sign not in (-1, 1):
            raise SpecError(f"pooled: expected responses of the model with their signs, found {response!r}: {sign!r}.")
    if (spec.loadings or spec.pooled) and spec.family != "gaussian":
        raise SpecError(f"Pooled coefficients and slopes as predictors need family='gaussian', found {spec.family!r}.")


def response_label(response: str, label: str) -> str:
    """``phq9~alliance.within``: a term label with its response."""
    return f"{response}~{label}"


def from_json(text: str) -> ModelSpec:
    """Rebuild the specification that :meth:`ModelSpec.to_json` wrote."""
    try:
        values: Mapping = json.loads(text)
        responses = tuple(
            Response(
                column=r["column"],
                family=r["family"],
                level=r["level"],
                terms=tuple(Term(t["label"], tuple(Factor(**f) for f in t["factors"]), t["role"]) for t in r["terms"]),
            )
            for r in values["responses"]
        )
        random = tuple(
            RandomBlock(b["level"], tuple(b["terms"]), b["correlated"], b["centred"]) for b in values["random"]
        )
        shape = values["time"]
        return ModelSpec(
            kind=values["kind"],
            responses=responses,
            random=random,
            without=tuple(values["without"]),
            residual=values["residual"],
            time=None if shape is None else TimeShape(shape["kind"], tuple(shape["knots"]), shape["df"]),
            decompose=values["decompose"],
            priors=tuple((key, _priors.from_dict(p)) for key, p in values["priors"]),
            roles=tuple((a, b) for a, b in values["roles"]),
            uncorrelated=tuple((a, b) for a, b in values["uncorrelated"]),
            residual_by=values.get("residual_by"),
            therapist_in=values.get("therapist_in"),
            loadings=tuple((a, b) for a, b in values.get("loadings", ())),
            pooled=tuple((a, b) for a, b in values.get("pooled", ())),
            membership=values.get("membership", "current"),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as problem:
        raise SpecError(f"Not a psymech specification: {problem!r}.") from problem

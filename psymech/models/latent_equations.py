"""Equations of a mediation model with latent means: every variable a response, paths within patients as terms.

A term whose column is itself a response of sessions is latent: its column is what the response deviates from its
latent mean (part ``"within"``), the latent part of a unit, or, in the role ``"residual"``, the response's residual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psymech.models.common import intercept, part_label, time_terms
from psymech.names import Part
from psymech.spec.model import Factor, Response, Role, Term, TimeShape

BETWEEN: tuple[Part, ...] = ("patient", "therapist")


@dataclass(frozen=True, slots=True)
class LatentEquation:
    """One response with its predictors by path, in causal order."""

    name: str
    predictors: Mapping[str, tuple[str, ...]]


def latent_responses(
    equations: Sequence[LatentEquation],
    *,
    covariates: Sequence[str],
    moderators: Mapping[str, tuple[str, ...]],
    lags: Mapping[str, int],
    own_lag: Sequence[str],
    form: TimeShape | None,
) -> tuple[Response, ...]:
    """Return the responses with all their terms; those that do not exist at a response's level are left out later.

    Covariates and moderators enter every equation, so that latent parts are those given them. Two responses of one
    session between which no path of that session runs share a residual covariance, written as a regression of the
    later residual on the earlier.
    """
    given = list(dict.fromkeys([*covariates, *(w for names in moderators.values() for w in names)]))
    roles: dict[str, Role] = {w: "moderator" for names in moderators.values() for w in names if w not in covariates}
    shared = (
        intercept(),
        *time_terms(form),
        *(Term(name, (Factor(name),), roles.get(name, "covariate")) for name in given),
    )
    out = []
    for index, equation in enumerate(equations):
        terms: list[Term] = [*shared]
        if equation.name in own_lag:
            own = Factor(equation.name, "within", 1)
            terms.append(Term(f"{equation.name}.lag1", (own,), "autoregressive"))
        at_once: list[str] = []
        products: list[Term] = []
        for path, columns in equation.predictors.items():
            role: Role = "technique" if path in ("a", "c") else "common_factor"
            at_once += [column for column in columns if lags[path] == 0]
            for column in columns:
                for part in ("within", *BETWEEN):
                    factor = Factor(column, part, lags[path] if part == "within" else 0)
                    label = part_label(column, part)
                    terms.append(Term(label, (factor,), role))
                    products += [
                        Term(f"{label}:{w}", (factor, Factor(w)), "interaction") for w in moderators.get(path, ())
                    ]
        terms += [
            Term(f"{before.name}.residual", (Factor(before.name, "within"),), "residual")
            for before in equations[:index]
            if before.name not in at_once
        ]
        out.append(Response(equation.name, (*terms, *products), level="auto"))
    return tuple(out)

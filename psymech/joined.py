"""What joins several outcomes beyond random effects: coefficients pooled over outcomes, and patients' slopes that
predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.errors import DesignError, SpecError
from psymech.spec.model import ModelSpec, Term, response_label

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
POOLED_ROLES = ("technique", "common_factor", "interaction")
MEAN_SD = 1.0  # of the prior of an ingredient's mean over outcomes, SD of the outcome per SD of the ingredient
SPREAD_SD = 0.5  # of the half-normal prior of the SD of coefficients around that mean


@dataclass(frozen=True, slots=True, eq=False)
class Pooling:
    """Terms whose coefficients share a distribution over the outcomes.

    Attributes
    ----------
    ingredients : labels of the terms without their response.
    term : (n,) indices of the design's terms; ingredient : (n,) index into `ingredients`.
    scale : (n,) outcome units per unit of the column that make one SD per SD, negative where lower is better.
    """

    ingredients: tuple[str, ...]
    term: Ints
    ingredient: Ints
    scale: Floats


@dataclass(frozen=True, slots=True, eq=False)
class SlopePredictors:
    """Patients' random effects that predict outcomes of patients.

    Attributes
    ----------
    labels : ``coping_post~[alliance~exposure.within]``.
    response : (n,) index of the outcome; column : (n,) position among the patients' random terms.
    """

    labels: tuple[str, ...]
    response: Ints
    column: Ints


def make_pooling(
    spec: ModelSpec, *, terms: Sequence[str], term_specs: Sequence[Term], term_response: Ints, X: Floats, y: Floats,
    response: Ints,
) -> Pooling | None:  # fmt: skip
    """Return the terms that are pooled over the outcomes of a specification; None where it pools none.

    Raises
    ------
    SpecError
        No two outcomes share a technique or common factor, or a pooled coefficient has a prior of its own.
    """
    if not spec.pooled:
        return None
    sign = dict(spec.pooled)
    columns = [r.column for r in spec.responses]
    found: dict[str, list[int]] = {}
    for j, term in enumerate(term_specs):
        if columns[term_response[j]] in sign and term.role in POOLED_ROLES:
            found.setdefault(term.label, []).append(j)
    shared = {label: members for label, members in found.items() if len(members) > 1}
    if not shared:
        raise SpecError("pool=True pools each ingredient over outcomes, but no two outcomes share one.")
    given = {key for key, _ in spec.priors}
    for j in (j for members in shared.values() for j in members):
        if f"beta[{terms[j]}]" in given:
            raise SpecError(
                f"priors: 'beta[{terms[j]}]' is pooled over outcomes (pool=True) and has no prior of its own."
            )
    members = [(j, k) for k, each in enumerate(shared.values()) for j in each]
    scale = []
    for j, _ in members:
        rows = response == term_response[j]
        scale.append(sign[columns[term_response[j]]] * y[rows].std() / X[rows, j].std())
    return Pooling(tuple(shared), np.array([j for j, _ in members]), np.array([k for _, k in members]), np.array(scale))


def make_slope_predictors(spec: ModelSpec, random: Sequence[str]) -> SlopePredictors | None:
    """Return the patients' random terms that predict outcomes, `random` being the labels of those in the design.

    Raises
    ------
    DesignError
        A term does not vary over patients in this design.
    """
    if not spec.loadings:
        return None
    columns = [r.column for r in spec.responses]
    for _, label in spec.loadings:
        if label not in random:
            raise DesignError(
                f"{label!r} is to predict outcomes of patients, but it does not vary over patients here; what does: "
                f"{', '.join(random) or 'nothing'}."
            )
    return SlopePredictors(
        tuple(response_label(response, f"[{label}]") for response, label in spec.loadings),
        np.array([columns.index(response) for response, _ in spec.loadings]),
        np.array([list(random).index(label) for _, label in spec.loadings]),
    )


def correlated_responses(spec: ModelSpec) -> tuple[int, ...]:
    """Responses whose residuals correlate: all, or those of patients where others are of sessions."""
    if spec.residual != "unstructured":
        return ()
    of_units = tuple(i for i, r in enumerate(spec.responses) if r.level != "session")
    return of_units if spec.loadings else tuple(range(len(spec.responses)))

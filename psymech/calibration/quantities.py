"""What is ranked: parameters, a few random effects, shares of variance, indirect effects, log likelihoods.

Each has two sides: its true value, computed here from the parameters by its definition, and its posterior draws, read
from the fit with the library's own functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.calibration.density import has_marginal, log_conditional, log_marginal
from psymech.design import Design
from psymech.errors import SpecError
from psymech.inference.tree import tree_coords, variable_dims
from psymech.posterior.mediation import indirect_effects
from psymech.posterior.variance import variance_partition
from psymech.spec.model import ModelSpec, response_label

Floats = NDArray[np.float64]
LOG_LIKELIHOOD = "log_likelihood"
LOG_MARGINAL = "log_marginal"
SHARE = "therapist_share"
INDIRECT = "indirect"
PAIR = "pair"
KNOWN = frozenset(
    {names.BETA, names.SIGMA, names.PHI, names.NU, names.CUTPOINTS, names.RESIDUAL_CORR, names.SD_LOG_SIGMA}
    | {names.LOG_SIGMA, names.CORR_LOG_SIGMA}
    | {f(level) for f in (names.sd, names.corr, names.effect) for level in names.LEVELS}
)


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """One variable of the result: its dims and labels, and which entries of the fit's variable it takes."""

    name: str
    dims: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of labels of each dim."""
        return tuple(len(each) for each in self.labels)

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def entries(self) -> list[str]:
        """Name of each entry: ``sd_patient[time]``."""
        if not self.dims:
            return [self.name]
        return [
            f"{self.name}[{', '.join(self.labels[d][i] for d, i in enumerate(index))}]"
            for index in np.ndindex(self.shape)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The quantities of a model in order; `units` are the places of the units whose effects are ranked, by level."""

    quantities: tuple[Quantity, ...]
    units: Mapping[str, NDArray[np.int64]]

    @property
    def entries(self) -> list[str]:
        """Names of all entries, in the order of the vectors."""
        return [entry for q in self.quantities for entry in q.entries]


def make_plan(spec: ModelSpec, design: Design, *, effects: int | Mapping[str, int]) -> Plan:
    """Return what is ranked for a model; `effects` is the number of units a level whose effects are.

    Raises
    ------
    SpecError
        The model has variables that nothing here can draw.
    """
    unknown = sorted(set(variable_dims(design)) - KNOWN)
    shared = [level.level for level in design.levels if getattr(level, "members", None) is not None]
    if unknown or shared:
        what = f"the variables {', '.join(unknown)}" if unknown else f"{shared[0]}s that share rows"
        raise SpecError(f"calibrate() has no simulator for {what}. Calibrate the model without them.")
    coords = {name: tuple(str(x) for x in labels) for name, labels in tree_coords(design).items()}
    units = {
        level.level: _spread_out(level.n_units, effects if isinstance(effects, int) else effects.get(level.level, 0))
        for level in design.levels
    }
    found = []
    for name, dims in variable_dims(design).items():
        labels = tuple(coords[d] for d in dims)
        if len(dims) == 2 and dims[1] == dims[0] + names.AUX:
            pairs = _free_pairs(design, name, len(labels[0]))
            if pairs:
                shown = tuple(f"{labels[0][j]}, {labels[0][i]}" for i, j in pairs)
                found.append(Quantity(name, (f"{dims[0]}_{PAIR}",), (shown,)))
            continue
        if dims and dims[0] in units:
            chosen = units[dims[0]]
            if chosen.size == 0:
                continue
            labels = (tuple(labels[0][i] for i in chosen), *labels[1:])
        found.append(Quantity(name, dims, labels))
    if design.family == "gaussian" and len(design.responses) == 1 and design.level("therapist") is not None:
        found.append(Quantity(SHARE, (), ()))
    if routes := simple_routes(spec, design):
        found.append(Quantity(INDIRECT, ("mediator", "level"), (tuple(routes), ("within", "patient", "therapist"))))
    found.append(Quantity(LOG_LIKELIHOOD, (), ()))
    if has_marginal(design):
        found.append(Quantity(LOG_MARGINAL, (), ()))
    return Plan(tuple(found), units)


def _spread_out(n: int, k: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, max(k, 0))).round().astype(np.int64)) if k > 0 else np.zeros(0, int)


def _free_pairs(design: Design, variable: str, q: int) -> list[tuple[int, int]]:
    """Pairs of a correlation matrix that the model lets vary."""
    pairs = [(i, j) for i in range(q) for j in range(i)]
    for level in design.levels:
        if variable == names.corr(level.level):
            zero = np.zeros((q, q), dtype=bool) if level.zero is None else level.zero
            return [(i, j) for i, j in pairs if level.correlated and not zero[i, j]]
    return pairs


def simple_routes(spec: ModelSpec, design: Design) -> list[str]:
    """Mediators of a model whose indirect effects are written out below: one treatment, one outcome, mediators in
    parallel, observed parts of all levels, no moderators.
    """
    if (
        spec.kind != "mediation"
        or spec.decompose != "observed"
        or any(t.role == "moderator" for t in design.term_specs)
    ):
        return []
    role: dict[str, list[str]] = {}
    for column, what in spec.roles:
        role.setdefault(what, []).append(column)
    treatments, outcomes, mediators = (role.get(k, []) for k in ("treatment", "outcome", "mediator"))
    if len(treatments) != 1 or len(outcomes) != 1:
        return []
    x, y, terms = treatments[0], outcomes[0], set(design.terms)
    serial = any(response_label(m, f"{k}.within") in terms for m in mediators for k in mediators)
    needed = {
        response_label(target, f"{source}.{part}")
        for m in mediators
        for source, target in ((x, m), (m, y))
        for part in ("within", "patient", "therapist")
    }
    return mediators if not serial and needed <= terms else []


def true_vector(plan: Plan, spec: ModelSpec, design: Design, values: Mapping[str, Floats]) -> Floats:
    """True values of all entries, from the drawn parameters."""
    batch = {name: np.asarray(v, dtype=float)[None] for name, v in values.items()}
    parts = []
    for q in plan.quantities:
        if q.name == SHARE:
            found = _share(design, batch)
        elif q.name == INDIRECT:
            found = _indirect(spec, design, q.labels[0], batch)
        else:
            found = _from_values(plan, q, design, batch)
        parts.append(np.asarray(found, dtype=float).reshape(-1))
    return np.concatenate(parts)


def drawn_vectors(plan: Plan, design: Design, tree: xr.DataTree, kept: NDArray[np.int64]) -> Floats:
    """Draws of all entries, (chain, draw, entry).

    Log likelihoods are computed for the draws `kept` of each chain only, and missing elsewhere.
    """
    posterior = tree[names.POSTERIOR].dataset
    n_chains, n_draws = posterior.sizes[names.CHAIN], posterior.sizes[names.DRAW]
    n = n_chains * n_draws
    flat = {
        str(name): v.transpose(*names.SAMPLE_DIMS, ...).values.reshape(n, *v.shape[2:]) for name, v in posterior.items()
    }
    some = {name: v[kept] for name, v in flat.items()}
    parts = []
    for q in plan.quantities:
        if q.name == SHARE:
            share = variance_partition(tree)["share"].sel(level="therapist")
            found = share.transpose(*names.SAMPLE_DIMS).values
        elif q.name == INDIRECT:
            indirect = indirect_effects(tree)["indirect"].sel(mediator=list(q.labels[0]), level=list(q.labels[1]))
            found = indirect.transpose(*names.SAMPLE_DIMS, "mediator", "level").values
        elif q.name in (LOG_LIKELIHOOD, LOG_MARGINAL):
            found = np.full(n, np.nan)
            found[kept] = _from_values(plan, q, design, some)
        else:
            found = _from_values(plan, q, design, flat)
        parts.append(np.asarray(found, dtype=float).reshape(n_chains, n_draws, -1))
    return np.concatenate(parts, axis=2)


def _from_values(plan: Plan, q: Quantity, design: Design, values: Mapping[str, Floats]) -> Floats:
    if q.name == LOG_LIKELIHOOD:
        return log_conditional(design, values)
    if q.name == LOG_MARGINAL:
        return log_marginal(design, values)
    found = values[q.name]
    if q.dims and q.dims[0].endswith(PAIR):
        pairs = _free_pairs(design, q.name, found.shape[-1])
        return np.stack([found[..., i, j] for i, j in pairs], axis=-1)
    if q.dims and q.dims[0] in plan.units:
        return found[:, plan.units[q.dims[0]]]
    return found


def _covariance(values: Mapping[str, Floats], level: str) -> Floats:
    sd = values[names.sd(level)]
    return values[names.corr(level)] * sd[:, :, None] * sd[:, None, :]


def _share(design: Design, values: Mapping[str, Floats]) -> Floats:
    """Therapists' share of the variance of one session: the mean of z' Omega z over the rows, by levels."""
    variance = {
        level.level: np.einsum("ia,nab,ib->n", level.Z, _covariance(values, level.level), level.Z) / design.n_obs
        for level in design.levels
    }
    sigma = values[names.SIGMA].reshape(len(values[names.BETA]), -1)
    if names.LOG_SIGMA in values:
        therapists = design.level("therapist")
        assert therapists is not None
        residual = (np.exp(2 * values[names.LOG_SIGMA])[:, therapists.code]).mean(axis=1)
    else:
        residual = (sigma**2)[:, design.sd_code].mean(axis=1)
    return variance["therapist"] / (sum(variance.values()) + residual)


def _indirect(spec: ModelSpec, design: Design, mediators: Sequence[str], values: Mapping[str, Floats]) -> Floats:
    """Within: a b + the covariances of a and b over patients and therapists; between: the products of the slopes."""
    x = next(column for column, role in spec.roles if role == "treatment")
    y = next(column for column, role in spec.roles if role == "outcome")
    out = np.zeros((len(values[names.BETA]), len(mediators), 3))
    for k, m in enumerate(mediators):
        for p, part in enumerate(("within", "patient", "therapist")):
            labels = response_label(m, f"{x}.{part}"), response_label(y, f"{m}.{part}")
            a, b = (values[names.BETA][:, design.terms.index(label)] for label in labels)
            out[:, k, p] = a * b
            for level in design.levels if part == "within" else ():
                if set(labels) <= set(level.terms):
                    i, j = (level.terms.index(label) for label in labels)
                    out[:, k, p] += _covariance(values, level.level)[:, i, j]
    return out

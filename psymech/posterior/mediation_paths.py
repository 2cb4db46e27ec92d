"""The paths of a fitted mediation model: which exist at which level, their draws, and how they vary over units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import DataError, SpecError
from psymech.posterior import tree as read
from psymech.spec.model import response_label

Floats = NDArray[np.float64]
PathLevel = Literal["within", "patient", "therapist"]
PATH_LEVELS: Final[tuple[PathLevel, ...]] = get_args(PathLevel)
UNIT_LEVELS: Final = ("patient", "therapist")


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """One arrow of a path diagram at one level.

    Attributes
    ----------
    letter : a (treatment to mediator), b (mediator to outcome), c (treatment to outcome), d (mediator to mediator).
    draws : (chain, draw) average path; where it is moderated, at the values of the moderators asked for.
    label : the fixed effect, as the tree spells it; empty where the path was read from covariances.
    slopes : for each moderator the draws of the change of the path per unit.
    """

    source: str
    target: str
    letter: str
    level: PathLevel
    draws: Floats
    label: str = ""
    slopes: Mapping[str, Floats] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MediationTree:
    """A fitted mediation model read once.

    Attributes
    ----------
    paths : by level, source and target.
    covariance : for each level with random effects, its terms' labels and their covariance (chain, draw, q, q).
    at : values of the moderators at which the paths stand.
    """

    treatments: tuple[str, ...]
    mediators: tuple[str, ...]
    outcomes: tuple[str, ...]
    serial: bool
    latent: bool
    paths: Mapping[tuple[PathLevel, str, str], Path]
    covariance: Mapping[str, tuple[tuple[str, ...], Floats]]
    at: Mapping[str, float]

    def chains(self, treatment: str, outcome: str) -> tuple[tuple[str, ...], ...]:
        """Return the routes from a treatment to an outcome, as the mediators on the way."""
        if not self.serial:
            return tuple((m,) for m in self.mediators)
        routes: list[tuple[str, ...]] = []
        for last in self.mediators:
            before = [r for r in routes]
            routes.append((last,))
            routes += [(*r, last) for r in before]
        return tuple(sorted(routes, key=lambda r: (len(r), [self.mediators.index(m) for m in r])))

    def along(self, level: PathLevel, nodes: Sequence[str]) -> tuple[Path, ...] | None:
        """Return the paths from node to node at a level, or None where one of them does not exist there."""
        found = [self.paths.get((level, a, b)) for a, b in pairwise(nodes)]
        return None if any(p is None for p in found) else tuple(p for p in found if p is not None)

    def covariance_of(self, level: str, paths: Sequence[Path]) -> Floats:
        """Return the covariance of paths over the units of a level, (chain, draw, k, k); zero for paths that do not
        vary there, and for no level.
        """
        shape = paths[0].draws.shape
        k = len(paths)
        out = np.zeros((*shape, k, k))
        if level not in self.covariance:
            return out
        labels, full = self.covariance[level]
        index = [labels.index(p.label) if p.label in labels else -1 for p in paths]
        for i, a in enumerate(index):
            for j, b in enumerate(index):
                if a >= 0 and b >= 0:
                    out[..., i, j] = full[..., a, b]
        return out

    def spread(self, paths: Sequence[Path]) -> Floats:
        """Return the covariance of paths over all units: of patients, therapists and clinics, as far as they vary."""
        found = [self.covariance_of(level, paths) for level in self.covariance]
        return np.sum(found, axis=0) if found else self.covariance_of("", paths)

    def varies(self, path: Path) -> bool:
        """Whether a path is random at any level."""
        return bool(path.label) and any(path.label in labels for labels, _ in self.covariance.values())


def read_mediation(tree: xr.DataTree, *, at: Mapping[str, float] | None = None) -> MediationTree:
    """Read the paths of a fitted mediation model; SpecError where the tree is of another kind."""
    spec = read.json_attr(tree, names.ATTR_SPEC)
    roles: dict[str, list[str]] = {}
    for column, role in spec.get("roles") or ():
        roles.setdefault(str(role), []).append(str(column))
    if spec.get("kind") != "mediation":
        raise SpecError(
            f"expected the fit of a mediation model (psymech.mediation), found one of kind {spec.get('kind')!r}."
        )
    treatments = tuple(roles["treatment"])
    serial = "serial_mediator" in roles
    mediators = tuple(roles["serial_mediator" if serial else "mediator"])
    outcomes = tuple(roles["outcome"])
    covariance = {
        level: (read.labels_of(read.posterior(tree), names.term_dim(level)), read.covariance(tree, level))
        for level in read.levels_of(tree)
    }
    latent = spec.get("decompose") == "latent"
    traits = _traits(tree, treatments) if latent else ()
    moderators = {} if of_covariances(tree) else _moderator_means(tree)
    _known_moderators(at, moderators)
    values = {name: float((at or {}).get(name, mean)) for name, mean in moderators.items()}
    paths = {} if of_covariances(tree) else _term_paths(tree, treatments, mediators, values, exclude=traits)
    if latent:
        from psymech.posterior.mediation_latent import latent_paths

        between = latent_paths(tree, treatments, mediators, outcomes, serial=serial, own=paths)
        paths = {**between, **paths}
        covariance = {} if of_covariances(tree) else covariance
    return MediationTree(treatments, mediators, outcomes, serial, latent, paths, covariance, values)


def of_covariances(tree: xr.DataTree) -> bool:
    """Whether the paths within patients, too, are read from covariances: those of the residuals of a session."""
    return names.RESIDUAL_CORR in read.posterior(tree)


def _traits(tree: xr.DataTree, treatments: Sequence[str]) -> tuple[str, ...]:
    """Treatments that are no responses; with latent means their terms are total effects, not paths."""
    return tuple(x for x in treatments if x not in read.responses_of(tree))


def _known_moderators(at: Mapping[str, float] | None, known: Mapping[str, float]) -> None:
    for name in at or {}:
        if name not in known:
            have = ", ".join(known) or "none"
            raise SpecError(f"at: {name!r} moderates no path of this model; its moderators are: {have}.")


def _term_paths(
    tree: xr.DataTree,
    treatments: tuple[str, ...],
    mediators: tuple[str, ...],
    at: Mapping[str, float],
    *,
    exclude: Sequence[str],
) -> dict[tuple[PathLevel, str, str], Path]:
    beta = read.posterior(tree)[names.BETA].transpose(*names.SAMPLE_DIMS, names.TERM)
    place = {label: index for index, label in enumerate(read.labels_of(beta, names.TERM))}
    draws = beta.values
    infos = read.terms_of(tree)
    out: dict[tuple[PathLevel, str, str], Path] = {}
    for info in infos:
        if info.role not in ("technique", "common_factor") or info.response is None or info.column in exclude:
            continue
        letter = _letter(info.column, info.response, treatments, mediators)
        if info.part == "raw":
            _refuse_raw_trait(tree, info)
        level: PathLevel = "within" if info.part == "raw" else info.part  # type: ignore[assignment]
        slopes = {moderator: draws[..., place[label]] for moderator, label in _products(tree, info, at)}
        mean = draws[..., place[info.label]] + sum(slope * at[w] for w, slope in slopes.items())
        out[level, info.column, info.response] = Path(
            info.column, info.response, letter, level, np.asarray(mean), info.label, slopes
        )
    return out


def _letter(source: str, target: str, treatments: Sequence[str], mediators: Sequence[str]) -> str:
    if source in treatments:
        return "a" if target in mediators else "c"
    return "d" if target in mediators else "b"


def _entries(tree: xr.DataTree) -> list[dict]:
    return read.json_attr(tree, names.ATTR_TERMS)


def _products(tree: xr.DataTree, info: read.TermInfo, at: Mapping[str, float]) -> list[tuple[str, str]]:
    """Moderators of a path with the labels of its products."""
    found = []
    for moderator in at:
        label = f"{info.label}:{moderator}"
        if any(str(entry["label"]) == label for entry in _entries(tree)):
            found.append((moderator, label))
    return found


def _moderator_means(tree: xr.DataTree) -> dict[str, float]:
    """Mean of each moderator over the rows of the equations that hold it."""
    entries = _entries(tree)
    named: dict[str, float] = {}
    labels = [str(e["label"]) for e in entries]
    for entry in entries:
        if entry["role"] != "interaction" or len(entry["factors"]) != 2:
            continue
        moderator = str(entry["factors"][1]["column"])
        response = next(r for r in read.responses_of(tree) if str(entry["label"]).startswith(response_label(r, "")))
        column = response_label(response, moderator)
        if column in labels and moderator not in named:
            X = read.constants(tree, columns=False)[names.DESIGN_X].transpose(names.OBS, names.TERM).values
            rows = read.rows_of_response(tree, response)
            named[moderator] = float(X[rows, labels.index(column)].mean())
    return named


def _refuse_raw_trait(tree: xr.DataTree, info: read.TermInfo) -> None:
    """A trait with an undecomposed mediator would take the mediator's mixed slope for a path between patients."""
    data = read.constants(tree, columns=False)
    if names.group_of_obs("patient") not in data or info.response is None:
        return
    rows = read.rows_of_response(tree, info.response)
    values = data[names.DESIGN_X].transpose(names.OBS, names.TERM).values[rows]
    column = values[:, list(read.labels_of(data, names.TERM)).index(info.label)]
    code = read.unit_of_obs(tree, "patient")[rows]
    low, high = np.full(code.max() + 1, np.inf), np.full(code.max() + 1, -np.inf)
    np.minimum.at(low, code, column)
    np.maximum.at(high, code, column)
    if (np.bincount(code) > 1).any() and np.all(high[np.unique(code)] == low[np.unique(code)]):
        raise SpecError(
            f"{info.column!r} does not vary within patients, and the model was fitted with decompose='none': its "
            "slopes mix levels, so that no indirect effect can be told. Fit with decompose='observed'."
        )


def expected_product(means: Sequence[Floats], covariance: Floats) -> Floats:
    r"""Return E[x_1 ... x_k] of jointly normal variables, draw by draw.

    .. math:: E\prod_i x_i = \mu_1 E\prod_{i>1} x_i + \sum_{j>1} \sigma_{1j} E\prod_{i \ne 1, j} x_i

    (Isserlis 1918, doi:10.1093/biomet/12.1-2.134). For two variables: :math:`ab + \sigma_{ab}`.

    Parameters
    ----------
    means
        k arrays of one shape.
    covariance
        (..., k, k).
    """
    if not means:
        return np.ones(covariance.shape[:-2])
    rest = list(range(1, len(means)))
    total = means[0] * expected_product([means[i] for i in rest], covariance[..., 1:, 1:])
    for j in rest:
        others = [i for i in rest if i != j]
        reduced = covariance[..., others, :][..., :, others]
        total = total + covariance[..., 0, j] * expected_product([means[i] for i in others], reduced)
    return total


def unit_deviations(tree: xr.DataTree, model: MediationTree, by: str, paths: Sequence[Path]) -> tuple[Floats, NDArray]:
    """Return how much each unit's paths deviate from the average, (chain, draw, unit, k), and the units' ids.

    A patient's deviation includes that of the patient's therapist and clinic, a therapist's that of the clinic.
    """
    if by not in UNIT_LEVELS:
        raise SpecError(f"by: expected one of {', '.join(UNIT_LEVELS)}, found {by!r}.")
    draws = read.posterior(tree)
    varies_here = by in model.covariance and any(p.label in model.covariance[by][0] for p in paths)
    if not varies_here and not (by == "patient" and any(model.varies(p) for p in paths)):
        raise SpecError(
            f"by={by!r}: no path varies over {by}s in this model. Name paths in random={{{by!r}: ('a', 'b', 'c')}}."
        )
    if by not in model.covariance:
        raise SpecError("by='patient': the model has no random effects of patients.")
    own = _effects(tree, by, model, paths)
    ids = draws[by].values
    levels = list(read.levels_of(tree))
    place = np.arange(ids.size)
    for lower, upper in pairwise(levels[levels.index(by) :]):
        parent = names.parent_of_unit(lower, upper)
        data = read.constants(tree, columns=False)
        if parent not in data:
            raise DataError(f"by={by!r}: the tree does not say which {upper} each {lower} has.")
        place = data[parent].values.astype(int)[place]
        if any(path.label in model.covariance[upper][0] for path in paths):
            own = own + _effects(tree, upper, model, paths)[:, :, place]
    return own, ids


def _effects(tree: xr.DataTree, level: str, model: MediationTree, paths: Sequence[Path]) -> Floats:
    values = read.level_effects(tree, level).values
    labels = model.covariance[level][0]
    out = np.zeros((*values.shape[:3], len(paths)))
    for i, path in enumerate(paths):
        if path.label in labels:
            out[..., i] = values[..., labels.index(path.label)]
    return out

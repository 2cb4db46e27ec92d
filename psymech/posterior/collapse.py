"""From a fitted tree back to the exact Gaussian engine: cross-products, and the variance parameters of every draw."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.gaussian.cross import CrossProducts, RowTerm, cross_products
from psymech.gaussian.nesting import sort_units
from psymech.gaussian.patterns import ByPattern, by_pattern
from psymech.gaussian.residual import AR1, ByGroup, ar1
from psymech.gaussian.residual_draws import ResidualDraws, residual_draws
from psymech.names import Level
from psymech.posterior import tree as read
from psymech.posterior.residuals import differs, row_sd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CollapsedFit:
    """What the engine needs of a fit; draws of all chains stand one behind the other, D in all.

    Attributes
    ----------
    columns, y, unit : rows (n, m - 1), (n,), and the place of each row's lowest unit.
    order : for each level, lowest first, the tree's unit at each of the engine's places.
    residual : structure, (D, n_coef) coefficients and log|R_i| of the lowest level's units; terms : its constant
        matrices; factors : for each level (D, q, q).
    beta : (D, p) fixed effects where a prior of theirs is not normal, else None; prior : mean and precision, or None.
    """

    levels: tuple[Level, ...]
    columns: Floats
    y: Floats
    unit: Ints
    cross: CrossProducts
    terms: tuple[RowTerm, ...]
    residual: ResidualDraws
    order: tuple[Ints, ...]
    factors: tuple[Floats, ...]
    beta: Floats | None
    prior: tuple[Floats, Floats] | None


def collapsed_fit(tree: xr.DataTree) -> CollapsedFit:
    """Read a tree of a Gaussian model with nested levels, whichever engine sampled it.

    Raises
    ------
    SpecError
        Another family, patients crossed with therapists, or a model without random effects.
    """
    _refuse(tree)
    levels = read.levels_of(tree)
    data = read.constants(tree)
    terms = read.labels_of(data, names.TERM)
    by_label = dict(zip(terms, data[names.DESIGN_X].transpose(names.OBS, names.TERM).values.T, strict=True))
    rows = np.arange(data.sizes[names.OBS])
    z_labels = []
    for level in levels:
        labels = read.labels_of(data, names.term_dim(level))
        z_labels.append(labels)
        for label, column in zip(labels, read.design_rows(tree, level, rows).T, strict=True):
            by_label.setdefault(label, column)
    position = {label: index for index, label in enumerate(by_label)}
    columns = np.column_stack(list(by_label.values())).astype(float)
    order, places, parents = sort_units([read.unit_of_obs(tree, level) for level in levels])
    residual, theta = _residual(tree)
    unit = places[0][read.unit_of_obs(tree, levels[0])]
    y = read.outcome(tree)
    row_terms = residual.terms()
    cross = cross_products(
        columns,
        y,
        unit,
        parents,
        [np.array([position[label] for label in labels]) for labels in z_labels],
        np.array([position[label] for label in terms], dtype=np.int64),
        row_terms,
    )
    prior = beta_prior(tree)
    beta = read.posterior(tree)[names.BETA].transpose(*names.SAMPLE_DIMS, names.TERM).values
    return CollapsedFit(
        levels=levels,
        columns=columns,
        y=y,
        unit=unit,
        cross=cross,
        terms=row_terms,
        residual=residual_draws(residual, theta, unit),
        order=order,
        factors=tuple(_root(read.covariance(tree, level)) for level in levels),
        beta=None if prior is not None else beta.reshape(-1, len(terms)),
        prior=prior,
    )


def beta_prior(tree: xr.DataTree) -> tuple[Floats, Floats] | None:
    """Return mean and precision of the fixed effects' normal prior, or None where a prior is not normal or is pooled.

    The prior of an intercept belongs to the expected outcome at the average of its response's other columns.
    """
    infos = read.terms_of(tree)
    table = read.json_attr(tree, names.ATTR_PRIORS)
    if read.json_attr(tree, names.ATTR_SPEC).get("pooled"):
        return None  # normal given the means and the SD over outcomes, which are parameters
    priors = [table[f"{names.BETA}[{info.label}]"] for info in infos]
    if any(prior["family"] != "Normal" for prior in priors):
        return None
    X = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM).values
    several = len(read.responses_of(tree)) > 1
    average = np.eye(len(infos))  # from (intercepts at zero, slopes) to (intercepts at the average row, slopes)
    for j, info in enumerate(infos):
        if info.role == "intercept":
            rows = read.rows_of_response(tree, info.response) if several and info.response else np.arange(len(X))
            mine = [other.response == info.response and other.role != "intercept" for other in infos]
            average[j] += np.where(mine, X[rows].mean(axis=0), 0.0)
    mean = np.array([float(prior["mean"]) for prior in priors])
    precision = np.diag([float(prior["sd"]) ** -2.0 for prior in priors])
    return np.linalg.solve(average, mean), average.T @ precision @ average


def _refuse(tree: xr.DataTree) -> None:
    families = {read.family_of(tree, response) for response in read.responses_of(tree)}
    if families != {"gaussian"}:
        other = ", ".join(sorted(families - {"gaussian"}))
        raise SpecError(
            f"Leaving units out without refitting is exact for Gaussian responses only, found the family {other}. "
            "For this family fit again without each group of units (cross-validation by refitting)."
        )
    if not read.json_attr(tree, names.ATTR_DESIGN).get("nested", True):
        raise SpecError(
            "Leaving units out without refitting needs patients nested in therapists; here they are crossed. "
            "Fit again without each group of units (cross-validation by refitting)."
        )
    if names.LOG_SIGMA in read.posterior(tree):
        raise SpecError(
            "Leaving units out without refitting is not available where each therapist has a residual SD "
            "(residual_by='therapist'). Fit again without each group of units (cross-validation by refitting)."
        )
    if not read.levels_of(tree):
        raise SpecError("The fit has no random effects: there is no unit to leave out.")


def _residual(tree: xr.DataTree) -> tuple[ByGroup | AR1 | ByPattern, Floats]:
    """Residual structure, and its parameters at every draw, (D, n_theta)."""
    data, responses = read.constants(tree), read.responses_of(tree)
    n = data.sizes[names.OBS]
    response = data[names.RESPONSE_OF_OBS].values.astype(np.int64) if len(responses) > 1 else np.zeros(n, np.int64)
    if differs(tree):
        found = row_sd(tree, read.one_response(tree, None), np.arange(n))
        return ByGroup(found.code), found.sd
    sigma = np.column_stack([read.residual_sd(tree, r).values.ravel() for r in responses])
    kind = read.json_attr(tree, names.ATTR_SPEC)["residual"]
    if kind == "unstructured":
        draws = read.posterior(tree)[names.RESIDUAL_CORR]
        corr = draws.transpose(*names.SAMPLE_DIMS, names.RESPONSE, names.RESPONSE + names.AUX).values
        root = np.linalg.cholesky(corr.reshape(-1, *corr.shape[-2:])) * sigma[:, :, None]
        return by_pattern(data["row_of_obs"].values, response), root[:, *np.tril_indices(len(responses))]
    if kind == "iid":
        return ByGroup(response), sigma
    phi = read.posterior(tree)[names.PHI].transpose(*names.SAMPLE_DIMS).values.ravel()
    series = read.unit_of_obs(tree, "patient") * len(responses) + response
    structure = ar1(data[names.SESSION_OF_OBS].values.astype(float), series, group=response)
    return structure, np.column_stack([sigma, *([phi] * len(responses))])


def _root(covariance: Floats) -> Floats:
    """Symmetric square roots, (D, q, q); covariances may be singular."""
    q = covariance.shape[-1]
    values, vectors = np.linalg.eigh(covariance.reshape(-1, q, q))
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(vectors, -1, -2)

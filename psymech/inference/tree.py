"""From raw draws to the tree: the one place that writes the contract of a fitted model."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import __version__, names
from psymech.design import Design
from psymech.spec.model import ModelSpec

_STATS = {
    "diverging": ("diverging",),
    "energy": ("energy",),
    "n_steps": ("n_steps",),
    "step_size": ("step_size",),
    "tree_depth": ("tree_depth", "depth"),
    "reached_max_treedepth": ("reached_max_treedepth", "maxdepth_reached"),
    "lp": ("lp", "logp"),
    "acceptance_rate": ("acceptance_rate", "mean_tree_accept"),
}


def variable_dims(design: Design) -> dict[str, tuple[str, ...]]:
    """Dims, without chain and draw, of every posterior variable that the design calls for."""
    per_response = (names.RESPONSE,) if len(design.responses) > 1 else ()
    dims: dict[str, tuple[str, ...]] = {names.BETA: (names.TERM,)}
    for level in design.levels:
        dim = names.term_dim(level.level)
        dims[names.sd(level.level)] = (dim,)
        dims[names.corr(level.level)] = (dim, dim + names.AUX)
        dims[names.effect(level.level)] = (level.level, dim)
    if design.family in ("gaussian", "student"):
        dims[names.SIGMA] = per_response if design.residual_by is None else (names.RESIDUAL_GROUP,)
    if design.sd_by_therapist:
        dims[names.SD_LOG_SIGMA] = ()
        dims[names.LOG_SIGMA] = ("therapist",)
        if design.sd_with_effects:
            dims[names.CORR_LOG_SIGMA] = ()
    if design.residual == "ar1":
        dims[names.PHI] = ()
    if design.residual == "unstructured":
        dims[names.RESIDUAL_CORR] = (names.RESPONSE, names.RESPONSE + names.AUX)
    if design.family == "student":
        dims[names.NU] = ()
    if design.family == "ordinal":
        dims[names.CUTPOINTS] = (names.THRESHOLD,)
    if _n_missing(design):
        dims[names.IMPUTED] = (names.MISSING,)
    if design.slope_predictors is not None:
        dims[names.LOADING] = (names.LOADING_TERM,)
    if design.pooled is not None:
        dims[names.POOLED_MEAN], dims[names.POOLED_SD] = (names.INGREDIENT,), ()
    return dims


def _n_missing(design: Design) -> int:
    """Number of missing values that are parameters."""
    if design.imputation is not None:
        return design.imputation.n
    return 0 if design.latent is None else design.latent.n_imputed


def tree_coords(design: Design) -> dict[str, NDArray]:
    """Coordinates of the tree."""
    coords: dict[str, NDArray] = {names.TERM: np.array(design.terms, dtype=object)}
    if len(design.responses) > 1:
        coords[names.RESPONSE] = np.array(design.responses, dtype=object)
        if design.residual == "unstructured":
            coords[names.RESPONSE + names.AUX] = coords[names.RESPONSE]
    if design.residual_by is not None:
        coords[names.RESIDUAL_GROUP] = np.array(design.residual_by.labels, dtype=object)
    if _n_missing(design):
        coords[names.MISSING] = np.arange(_n_missing(design))
    if design.slope_predictors is not None:
        coords[names.LOADING_TERM] = np.array(design.slope_predictors.labels, dtype=object)
    if design.pooled is not None:
        coords[names.INGREDIENT] = np.array(design.pooled.ingredients, dtype=object)
    for level in design.levels:
        dim = names.term_dim(level.level)
        coords[level.level] = level.labels
        coords[dim] = coords[dim + names.AUX] = np.array(level.terms, dtype=object)
    if design.family == "ordinal":
        pairs = zip(design.categories, design.categories[1:], strict=False)
        coords[names.THRESHOLD] = np.array([f"{a:g}|{b:g}" for a, b in pairs], dtype=object)
    return coords


def assemble_tree(
    draws: Mapping[str, NDArray],
    stats: Mapping[str, NDArray],
    *,
    spec: ModelSpec,
    design: Design,
    attrs: Mapping[str, str | int | float],
) -> xr.DataTree:
    """Return the fitted tree.

    Parameters
    ----------
    draws
        Posterior variables, each (chain, draw, *dims) with the dims of :func:`variable_dims`. A missing correlation
        matrix is filled with the identity: terms that do not correlate. Random effects of a level may be left out.
    stats
        Sampler statistics under any sampler's names, each (chain, draw).
    attrs
        Attributes of the root: engine, seed, sampler, timings.
    """
    coords = tree_coords(design)
    n_chains, n_draws = next(iter(draws.values())).shape[:2]
    sample_coords = {names.CHAIN: np.arange(n_chains), names.DRAW: np.arange(n_draws)}
    posterior: dict[str, tuple[tuple[str, ...], NDArray]] = {}
    for name, dims in variable_dims(design).items():
        values = draws.get(name)
        if values is None:
            if len(dims) < 2 or dims[1] != dims[0] + names.AUX:
                continue
            q = len(coords[dims[0]])
            values = np.broadcast_to(np.eye(q), (n_chains, n_draws, q, q)).copy()
        posterior[name] = ((*names.SAMPLE_DIMS, *dims), values)
    used = {d for dims, _ in posterior.values() for d in dims}
    groups = {
        names.POSTERIOR: xr.Dataset(
            posterior, coords={k: v for k, v in {**sample_coords, **coords}.items() if k in used}
        ),
        names.SAMPLE_STATS: xr.Dataset(_portable_stats(stats), coords=sample_coords),
        names.OBSERVED_DATA: xr.Dataset({"y": ((names.OBS,), design.y)}, coords={names.OBS: np.arange(design.n_obs)}),
        names.CONSTANT_DATA: _constant_data(design, coords),
    }
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = {
        names.ATTR_VERSION: __version__,
        names.ATTR_SPEC: spec.to_json(),
        names.ATTR_TERMS: json.dumps(_term_table(design), ensure_ascii=False),
        names.ATTR_DESIGN: json.dumps(_design_notes(design), ensure_ascii=False),
        names.ATTR_NOTES: json.dumps([asdict(f) for f in design.report.findings], ensure_ascii=False, default=str),
        **attrs,
    }
    return tree


def _portable_stats(stats: Mapping[str, NDArray]) -> dict[str, tuple[tuple[str, str], NDArray]]:
    found = {}
    for portable, spellings in _STATS.items():
        for spelling in spellings:
            if spelling in stats:
                found[portable] = (names.SAMPLE_DIMS, np.asarray(stats[spelling]))
                break
    return found


def _constant_data(design: Design, coords: Mapping[str, NDArray]) -> xr.Dataset:
    obs = (names.OBS,)
    data: dict[str, tuple[tuple[str, ...], NDArray]] = {
        names.DESIGN_X: ((names.OBS, names.TERM), _known(design, design.terms, design.X)),
        names.SESSION_OF_OBS: (obs, design.session),
        names.TIME_OF_OBS: (obs, design.time),
        "row_of_obs": (obs, design.row),
    }
    if len(design.responses) > 1:
        data[names.RESPONSE_OF_OBS] = (obs, design.response)
    if design.residual_by is not None:
        data[names.RESIDUAL_GROUP_OF_OBS] = (obs, design.residual_by.code)
    if design.imputation is not None:
        missing = design.imputation.missing
        data[names.ROW_OF_MISSING] = ((names.MISSING,), np.concatenate([m.row for m in missing]))
        response = np.repeat([m.response for m in missing], [m.row.size for m in missing])
        data[names.RESPONSE_OF_MISSING] = ((names.MISSING,), response)
        patients = [rows.code["patient"] for rows in design.imputation.imputed if "patient" in rows.code]
        if patients:
            data[names.PATIENT_OF_MISSING] = ((names.MISSING,), np.concatenate(patients))
    if design.latent is not None and design.latent.n_imputed:
        holes = slice(design.latent.n_obs, design.latent.n_obs + design.latent.n_imputed)
        data[names.ROW_OF_MISSING] = ((names.MISSING,), design.latent.row[holes])
        data[names.RESPONSE_OF_MISSING] = ((names.MISSING,), design.latent.response[holes])
        data[names.PATIENT_OF_MISSING] = ((names.MISSING,), design.latent.code["patient"][holes])
    for position, level in enumerate(design.levels):
        Z = _known(design, level.terms, level.Z)
        data[names.design_z(level.level)] = ((names.OBS, names.term_dim(level.level)), Z)
        data[names.group_of_obs(level.level)] = (obs, level.code)
        if level.members is not None:
            dims = (names.OBS, names.member_dim(level.level))
            data[names.members_of_obs(level.level)] = (dims, level.members.code)
            data[names.weights_of_obs(level.level)] = (dims, level.members.weight)
        if level.parent is not None:
            upper = design.levels[position + 1].level
            data[names.parent_of_unit(level.level, upper)] = ((level.level,), level.parent)
    coords = dict(coords)
    for name, means in design.unit_means.items():
        coords[names.COLUMN] = np.array(list(means), dtype=object)
        coords[name] = design.unit_ids[name]
        data[names.mean_of_unit(name)] = ((name, names.COLUMN), np.column_stack(list(means.values())))
    used = {d for dims, _ in data.values() for d in dims} & coords.keys()
    return xr.Dataset(data, coords={names.OBS: np.arange(design.n_obs), **{d: coords[d] for d in used}})


def _latent_columns(design: Design) -> tuple[str, ...]:
    return () if design.latent is None else tuple(design.terms[j] for j in design.latent.terms)


def _known(design: Design, labels: tuple[str, ...], columns: NDArray) -> NDArray:
    """Columns with NaN where their values are parameters."""
    latent = np.isin(labels, _latent_columns(design))
    return np.where(latent, np.nan, columns) if latent.any() else columns


def _term_table(design: Design) -> list[dict[str, object]]:
    return [
        {
            "label": label,
            "role": term.role,
            "part": term.factors[0].part if len(term.factors) == 1 else "raw",
            "column": term.factors[0].column if len(term.factors) == 1 else "",
            "factors": [{"column": f.column, "part": f.part, "lag": f.lag, "basis": f.basis} for f in term.factors],
        }
        for label, term in zip(design.terms, design.term_specs, strict=True)
    ]


def _without_rows(design: Design) -> dict[str, dict[str, list[int]]]:
    """By level, the units whose random columns are zero in every row: the data say nothing on their effects."""
    found: dict[str, list[int]] = {}
    for level in design.levels:
        varies = (level.Z != 0).any(axis=1)
        seen = np.bincount(level.code, weights=varies, minlength=level.n_units)
        if level.members is not None:
            shares = (level.members.weight * varies[:, None]).ravel()
            seen = np.bincount(level.members.code.ravel(), weights=shares, minlength=level.n_units)
        if not seen.all():
            found[level.level] = np.flatnonzero(seen == 0).tolist()
    return {"without_rows": found} if found else {}


def _filled_responses(design: Design) -> dict[str, list[str]]:
    """Responses of which some columns of constant_data hold a first guess of imputed values."""
    if design.imputation is None:
        return {}
    held = {int(design.response[rows.row[0]]) for rows in design.imputation.observed}
    return {"filled_responses": [design.responses[r] for r in sorted(held)]}


def _predicted_by_slopes(design: Design) -> dict[str, list[str]]:
    """Responses whose linear predictor holds patients' effects of another response, beyond X and Z."""
    if design.slope_predictors is None:
        return {}
    return {"predicted_by_slopes": [design.responses[r] for r in np.unique(design.slope_predictors.response)]}


def _design_notes(design: Design) -> dict[str, object]:
    return {
        "time_basis": None if design.time_basis is None else design.time_basis.to_dict(),
        "categories": list(design.categories),
        "nested": design.nested,
        "roles": dict(design.roles),
        "patient_ids": design.patient_ids,
        **({"latent_columns": list(_latent_columns(design))} if design.latent is not None else {}),
        **_without_rows(design),
        **_filled_responses(design),
        **_predicted_by_slopes(design),
    }

"""Reading a fitted tree: levels, labels, responses, covariances. The one place where estimates look into the
DataTree.
"""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final, cast

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import DataError, SpecError, shown_ids
from psymech.names import LEVELS, Level
from psymech.spec.model import THERAPIST, response_label

IDENTITY_LINK: Final = frozenset({"gaussian", "student"})
UNIT_OF_LATENT: Final = "log odds"
ATTR_DATA: Final = "psymech_data"  # root attribute of a tree saved with data=False
DATA_LEFT_OUT: Final = "left out"


@dataclass(frozen=True, slots=True)
class TermInfo:
    """One fixed-effect column: its label, role, the part and column it comes from, its factors, its response."""

    label: str
    role: str
    part: str
    column: str
    factors: tuple[str, ...] = ()
    response: str | None = None


def refuse_other(tree: object) -> None:
    """Raise DataError where a fit is expected and something else was given."""
    if not isinstance(tree, xr.DataTree):
        advice = " Read the file first: psymech.load(path)." if isinstance(tree, str | PathLike) else ""
        raise DataError(f"expected a fitted tree (xarray.DataTree), found {type(tree).__name__}.{advice}")


def saved_without_rows(tree: xr.DataTree) -> bool:
    """Whether the fit was saved without its sessions (``data=False``)."""
    return tree.attrs.get(ATTR_DATA) == DATA_LEFT_OUT


def group(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Return a group of the tree as a Dataset; DataError where the tree has none."""
    refuse_other(tree)
    if name in (names.OBSERVED_DATA, names.CONSTANT_DATA) and saved_without_rows(tree):
        raise DataError(
            "this estimate needs the sessions, but the fit was saved without them (data=False). "
            "Use the fit as it was before, or a file saved with data=True."
        )
    if name not in tree.children:
        found = ", ".join(tree.children) or "no group"
        raise DataError(
            f"expected a fitted tree with the group {name!r}, found {found}. "
            "Fit with psymech, or load the file of a fit."
        )
    return cast(xr.DataTree, tree[name]).to_dataset()


def posterior(tree: xr.DataTree) -> xr.Dataset:
    """Return the posterior group."""
    return group(tree, names.POSTERIOR)


def constants(tree: xr.DataTree, *, columns: bool = True) -> xr.Dataset:
    """Return the constant_data group: design columns and nesting.

    With `columns` a fit is refused by :func:`refuse_hidden_columns`; without, only nesting, responses and sessions may
    be read.
    """
    if columns:
        refuse_hidden_columns(tree)
    return group(tree, names.CONSTANT_DATA)


def refuse_hidden_columns(tree: xr.DataTree) -> None:
    """Raise SpecError for a fit whose linear predictor holds more than the columns that the tree stores, or whose
    columns are parameters.
    """
    if names.ATTR_DESIGN not in tree.attrs:
        return
    design = json_attr(tree, names.ATTR_DESIGN)
    latent = design.get("latent_columns")
    if latent:
        raise SpecError(
            "this estimate reads the model's columns, but those of "
            f"{shown_ids(latent)} are deviations from latent means: parameters of the model, not data. Ask for "
            "indirect_effects(), mediation_table() or effects(), or fit with decompose='observed'."
        )
    filled = design.get("filled_responses")
    if filled:
        raise SpecError(
            f"this estimate reads the model's columns, but those of {shown_ids(filled)} hold imputed values of a "
            "mediator: parameters of the model, not data. Ask for indirect_effects(), mediation_table(), plot_paths() "
            "or effects(), or complete the mediator before the fit."
        )
    joined = design.get("predicted_by_slopes")
    if joined:
        raise SpecError(
            f"this estimate takes each response from the model's columns, but {shown_ids(joined)} also go with "
            "patients' random effects of another response (process=). Read 'loading' in the posterior, ask for "
            "effects(), or fit the outcomes without process=."
        )


def json_attr(tree: xr.DataTree, name: str) -> Any:
    """Return a JSON attribute of the root; DataError where it is absent or damaged."""
    refuse_other(tree)
    text = tree.attrs.get(name)
    if text is None:
        raise DataError(
            f"expected the attribute {name!r} on the tree's root, found none. Was the tree fitted by psymech?"
        )
    try:
        return json.loads(text)
    except (TypeError, json.JSONDecodeError) as problem:
        raise DataError(f"the attribute {name!r} of the tree's root is not JSON: {problem}.") from problem


def labels_of(values: xr.DataArray | xr.Dataset, dim: str) -> tuple[str, ...]:
    """Return a dimension's coordinate as text, in order (a file may give them back as any string type)."""
    return tuple(str(label) for label in values[dim].values.tolist())


def responses_of(tree: xr.DataTree) -> tuple[str, ...]:
    """Return the response columns, in order."""
    return tuple(str(r["column"]) for r in json_attr(tree, names.ATTR_SPEC)["responses"])


def one_response(tree: xr.DataTree, response: str | None) -> str:
    """Return the response asked for; SpecError where it is unknown, or not said although there are several."""
    known = responses_of(tree)
    if response is None:
        if len(known) != 1:
            raise SpecError(
                f"the model has {len(known)} responses: say which with response=..., one of {shown_ids(known)}."
            )
        return str(known[0])
    if response not in known:
        raise SpecError(f"response: expected one of {shown_ids(known)}, found {response!r}.")
    return response


def family_of(tree: xr.DataTree, response: str | None = None) -> str:
    """Return the family of a response."""
    chosen = one_response(tree, response)
    rows = json_attr(tree, names.ATTR_SPEC)["responses"]
    return next(str(r["family"]) for r in rows if str(r["column"]) == chosen)


def level_of_response(tree: xr.DataTree, response: str) -> str:
    """Return where a response has one value a unit: ``"session"``, ``"patient"``, ``"therapist"`` or ``"clinic"``."""
    rows = json_attr(tree, names.ATTR_SPEC)["responses"]
    return next(str(r.get("level", "session")) for r in rows if str(r["column"]) == response)


def terms_of(tree: xr.DataTree) -> tuple[TermInfo, ...]:
    """Return what is known about each fixed-effect column, in design order."""
    known = responses_of(tree)
    several = known if len(known) > 1 else ()
    return tuple(_term_info(entry, several) for entry in json_attr(tree, names.ATTR_TERMS))


def response_terms(tree: xr.DataTree, response: str) -> list[dict[str, Any]]:
    """Return the entries of the term table that belong to a response, factors as mappings, in design order."""
    every = json_attr(tree, names.ATTR_TERMS)
    if len(responses_of(tree)) == 1:
        return list(every)
    return [entry for entry in every if str(entry["label"]).startswith(response_label(response, ""))]


def _term_info(entry: dict[str, Any], several: Sequence[str]) -> TermInfo:
    label = str(entry["label"])
    owner = entry.get("response") or next((r for r in several if label.startswith(response_label(r, ""))), None)
    return TermInfo(
        label=label,
        role=str(entry.get("role", "")),
        part=str(entry.get("part", "raw")),
        column=str(entry.get("column") or ""),
        factors=tuple(_factor_key(factor) for factor in entry.get("factors") or ()),
        response=owner,
    )


def _factor_key(factor: object) -> str:
    return factor if isinstance(factor, str) else json.dumps(factor, sort_keys=True)


def levels_of(tree: xr.DataTree) -> tuple[Level, ...]:
    """Return the levels with random effects, lowest first."""
    draws = posterior(tree)
    return tuple(level for level in LEVELS if names.sd(level) in draws)


def require_level(tree: xr.DataTree, level: str) -> Level:
    """Return the level; SpecError where the model has no random effects there."""
    known = levels_of(tree)
    if level not in known:
        have = ", ".join(known) or "none"
        raise SpecError(
            f"level: the model has no random effects at the level {level!r}; its levels are: {have}. "
            f"Fit with {level}=... in the data and a random term there, or ask for another level."
        )
    return cast(Level, level)


def random_label(tree: xr.DataTree, level: str, term: str, response: str | None = None) -> str:
    """Return the label of a random term as the tree spells it; SpecError lists the terms where there is none."""
    known = labels_of(posterior(tree), names.term_dim(require_level(tree, level)))
    several = responses_of(tree)
    if len(several) == 1:
        one_response(tree, response)
        wanted = [term]
    elif response is not None:
        wanted = [response_label(one_response(tree, response), term)]
    else:
        wanted = [term, *(response_label(each, term) for each in several)]
    found = [label for label in wanted if label in known]
    if len(found) > 1:
        raise SpecError(
            f"term {term!r} varies over {level}s in several responses: {', '.join(found)}. Say which with response=..."
        )
    if not found:
        raise SpecError(
            f"term: {wanted[0]!r} does not vary over {level}s in this model; the terms that do: {', '.join(known)}."
        )
    return found[0]


def take(values: xr.DataArray, dim: str, label: str) -> xr.DataArray:
    """Return the entry of one label, its coordinate dropped."""
    return values.isel({dim: labels_of(values, dim).index(label)}, drop=True)


def unit_effects(tree: xr.DataTree, *, level: str, term: str, response: str | None = None) -> xr.DataArray:
    """Return the draws of one random term, dims (chain, draw, level), of the units that have rows of theirs
    (:func:`units_with_rows`).
    """
    label = random_label(tree, level, term, response)
    values = take(level_effects(tree, level), names.term_dim(level), label)
    kept = units_with_rows(tree, level)
    return values if kept.size == values.sizes[level] else values.isel({level: kept})


def level_effects(tree: xr.DataTree, level: str) -> xr.DataArray:
    """Return the draws of all random effects of a level, dims (chain, draw, level, level_term); DataError where the fit
    kept none.
    """
    draws = posterior(tree)
    if names.effect(level) not in draws:
        raise DataError(
            f"expected {names.effect(level)!r} in the posterior, found none: the fit kept no effects of {level}s. "
            f"Fit with {level!r} among effects=."
        )
    return draws[names.effect(level)].transpose(*names.SAMPLE_DIMS, level, names.term_dim(level))


def units_with_rows(tree: xr.DataTree, level: str) -> np.ndarray:
    """Return the positions of the units whose random columns are not zero in every row.

    In partially nested designs the therapist ids of untreated patients are placeholders, not therapists.
    """
    every = np.arange(posterior(tree).sizes[level])
    if names.ATTR_DESIGN not in tree.attrs:
        return every
    return np.setdiff1d(every, json_attr(tree, names.ATTR_DESIGN).get("without_rows", {}).get(level, []))


def partially_nested(tree: xr.DataTree, level: str) -> bool:
    """Whether some patients have no unit of a level, only a placeholder (therapist_in=)."""
    return level == THERAPIST and json_attr(tree, names.ATTR_SPEC).get("therapist_in") is not None


def rows_at_risk(tree: xr.DataTree, level: str) -> np.ndarray:
    """Return the rows that have a unit of a level; in partially nested designs, those of patients with a therapist."""
    rows = np.arange(constants(tree, columns=False).sizes[names.OBS])
    if level not in levels_of(tree) or not partially_nested(tree, level):
        return rows
    return np.flatnonzero(design_rows(tree, level, rows).any(axis=1))


def level_sd(tree: xr.DataTree, *, level: str, term: str, response: str | None = None) -> xr.DataArray:
    """Return the draws of a random term's SD, dims (chain, draw)."""
    label = random_label(tree, level, term, response)
    return take(posterior(tree)[names.sd(level)], names.term_dim(level), label).transpose(names.CHAIN, names.DRAW)


def covariance(tree: xr.DataTree, level: str) -> np.ndarray:
    """Return the covariance of a level's random terms, shape (chain, draw, q, q)."""
    draws = posterior(tree)
    dim = names.term_dim(level)
    sd = draws[names.sd(level)].transpose(names.CHAIN, names.DRAW, dim).values
    if names.corr(level) not in draws:
        return np.einsum("...i,ij->...ij", sd**2, np.eye(sd.shape[-1]))
    corr = draws[names.corr(level)].transpose(names.CHAIN, names.DRAW, dim, dim + names.AUX).values
    return corr * sd[..., :, None] * sd[..., None, :]


def covariance_root(tree: xr.DataTree, level: str) -> np.ndarray:
    """Return roots L of the covariances L L' of a level's random terms, (samples, q, q); they may be singular."""
    omega = covariance(tree, level)
    values, vectors = np.linalg.eigh(omega.reshape(-1, *omega.shape[2:]))
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def rows_of_response(tree: xr.DataTree, response: str) -> np.ndarray:
    """Return the positions of a response's rows."""
    data = constants(tree, columns=False)
    known = responses_of(tree)
    if names.RESPONSE_OF_OBS not in data or len(known) == 1:
        return np.arange(data.sizes[names.OBS])
    return np.flatnonzero(data[names.RESPONSE_OF_OBS].values == known.index(response))


def residual_sd(tree: xr.DataTree, response: str) -> xr.DataArray:
    """Return the draws of a response's residual SD, dims (chain, draw); SpecError where it differs between rows."""
    if names.LOG_SIGMA in posterior(tree):
        raise SpecError(
            "a single residual SD is expected here, but each therapist has one (residual_by='therapist'). "
            "Fit without residual_by= for this estimate."
        )
    return per_response(tree, names.SIGMA, response)


def per_response(tree: xr.DataTree, variable: str, response: str) -> xr.DataArray:
    """Return a residual parameter's draws, dims (chain, draw): one for all responses or one each."""
    draws = posterior(tree)
    if variable not in draws:
        raise DataError(f"expected {variable!r} in the posterior, found none.")
    values = draws[variable]
    if names.RESPONSE in values.dims:
        labels = labels_of(values, names.RESPONSE)
        values = take(
            values, names.RESPONSE, response if response in labels else labels[responses_of(tree).index(response)]
        )
    if set(values.dims) != set(names.SAMPLE_DIMS):
        raise SpecError(
            f"{variable!r} varies over {', '.join(map(str, values.dims))}; a single residual SD is expected here."
        )
    return values.transpose(*names.SAMPLE_DIMS)


def design_rows(tree: xr.DataTree, level: str, rows: np.ndarray) -> np.ndarray:
    """Return the random-effect columns of a level for the given rows, shape (rows, q)."""
    variable = constants(tree)[names.design_z(level)]
    return variable.transpose(names.OBS, names.term_dim(level)).values[rows].astype(float)


def outcome(tree: xr.DataTree) -> np.ndarray:
    """Return the observed outcome, one value a row (NaN where missing)."""
    observed = group(tree, names.OBSERVED_DATA)
    return observed[next(iter(observed.data_vars))].values.astype(float)


def is_shared(tree: xr.DataTree, level: str) -> bool:
    """Whether units of a level share rows (multiple membership); without the sessions, whether they may."""
    if saved_without_rows(tree):
        if level == "patient" or json_attr(tree, names.ATTR_SPEC).get("membership", "current") == "current":
            return False
        return not json_attr(tree, names.ATTR_DESIGN)["nested"]
    return names.CONSTANT_DATA in tree.children and names.members_of_obs(level) in tree[names.CONSTANT_DATA]


def shared_levels(tree: xr.DataTree) -> tuple[Level, ...]:
    """Return the levels whose units share rows."""
    return tuple(level for level in LEVELS if is_shared(tree, level))


def shares_of_obs(tree: xr.DataTree, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the units of each row and their weights, both (rows, m), the largest weight first; m is one, and the
    weights are too, where every row has one unit.
    """
    if not is_shared(tree, level):
        code = unit_of_obs(tree, level)[:, None]
        return code, np.ones(code.shape)
    data, dims = constants(tree, columns=False), (names.OBS, names.member_dim(level))
    code = data[names.members_of_obs(level)].transpose(*dims).values.astype(np.int64)
    return code, data[names.weights_of_obs(level)].transpose(*dims).values.astype(float)


def effective_share(tree: xr.DataTree, level: str, rows: np.ndarray) -> np.ndarray:
    """Return the sum of squared weights of the given rows: what their variance has of one unit's, one where a row has
    one unit.
    """
    return (shares_of_obs(tree, level)[1][rows] ** 2).sum(axis=1)


def unit_pairs(tree: xr.DataTree, level: str, other: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the distinct pairs (unit of the level, other), shape (pairs, 2), over all units with a share in a row."""
    code, weight = shares_of_obs(tree, level)
    row, member = np.nonzero(weight[rows] > 0)
    return np.unique(np.column_stack([code[rows][row, member], other[rows][row]]), axis=0)


def unit_of_obs(tree: xr.DataTree, level: str) -> np.ndarray:
    """Return the index of each row's unit at a level; SpecError where units share rows."""
    if is_shared(tree, level):
        raise SpecError(
            f"{level}s share the rows of patients who changed (membership=), so a row belongs to no one of them; this "
            "estimate needs one each. Fit with membership='current', or leave the estimate out."
        )
    data = constants(tree, columns=False)
    name = names.group_of_obs(level)
    if name not in data:
        raise DataError(f"expected {name!r} in constant_data, found {', '.join(map(str, data.data_vars))}.")
    return data[name].values.astype(np.int64)


def unit_labels(tree: xr.DataTree, level: str) -> list[Hashable]:
    """Return the ids of a level's units, in the tree's order."""
    return posterior(tree)[level].values.tolist()


def categories_of(tree: xr.DataTree, response: str) -> np.ndarray:
    """Return the values of an ordinal outcome's categories, in order."""
    stored = json_attr(tree, names.ATTR_DESIGN).get("categories") if names.ATTR_DESIGN in tree.attrs else None
    if stored:
        return np.asarray(stored, dtype=float)
    lowest = np.nanmin(outcome(tree)[rows_of_response(tree, response)])
    return lowest + np.arange(posterior(tree).sizes[names.THRESHOLD] + 1.0)

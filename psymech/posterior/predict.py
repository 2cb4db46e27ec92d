"""Predictions for new sessions: of this therapist, the average one, a new one, a new patient."""

import warnings
from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np
import xarray as xr
from scipy.special import expit

from psymech import names
from psymech.arguments import checked_seed
from psymech.errors import DataError, DesignWarning, SpecError, shown_ids
from psymech.names import CHAIN, DRAW, OBS, SAMPLE_DIMS, TERM, Level
from psymech.posterior import tree as read
from psymech.posterior.carried import LastResiduals, decay, last_residuals
from psymech.posterior.newdata import NOBODY, UNSEEN, NewRows, NewUnits, new_rows
from psymech.posterior.residuals import differs
from psymech.residual_groups import group_labels

Target = Literal["this_therapist", "average_therapist", "new_therapist", "new_patient"]
Kind = Literal["mean", "draw"]
CHUNK_VALUES: Final = 2**20  # draws x rows added up at a time: 8 MB an array
type Drawn = dict[str, tuple[np.ndarray, np.ndarray]]
DRAWN: Final[Mapping[str, frozenset[str]]] = {
    "this_therapist": frozenset(),
    "new_patient": frozenset({"patient"}),
    "new_therapist": frozenset({"patient", "therapist"}),
}
"""Levels whose effects are drawn from the population, whether the fit knows the unit or not."""


def predict(
    tree: xr.DataTree,
    newdata: object,
    *,
    target: Target = "this_therapist",
    kind: Kind = "mean",
    response: str | None = None,
    seed: int | None = None,
) -> xr.DataArray:
    r"""Predict the outcome of new sessions.

    With :math:`\eta = x'\beta + z'(u_{ik} + v_k)` and g the link, ``kind="mean"`` gives draws of :math:`g^{-1}(\eta)`
    (expected category for ordinal outcomes), ``kind="draw"`` draws of the outcome itself, residual included. The
    targets differ in the effects:

    ===================  =======================================  =====================================
    target               patient effect u                         therapist effect v
    ===================  =======================================  =====================================
    this_therapist       the patient's own                        the therapist's own
    new_patient          drawn from N(0, Omega_u)                 the therapist's own
    new_therapist        drawn from N(0, Omega_u)                 drawn from N(0, Omega_v)
    average_therapist    zero                                     zero
    ===================  =======================================  =====================================

    Units that the fit does not know are drawn from their population under every target but the average; one draw a
    unit and posterior draw, shared by the unit's rows. Clinics follow the therapist's rule for their own effect.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    newdata : path, table or SessionData
        One row a session, columns as in the fit. The outcome is not needed (but for models with its own last value).
        Id columns may be absent: without patients all rows are one new patient's.
    target : {"this_therapist", "average_therapist", "new_therapist", "new_patient"}
    kind : {"mean", "draw"}
    response : str, optional
        Needed with several responses.
    seed : int, optional
        Of everything drawn here. The same seed gives the same numbers; None draws one, found in ``attrs["seed"]``.

    Returns
    -------
    DataArray
        Dims (chain, draw, obs), rows in the order of the new data; ``obs`` is the row of the table from 0, and
        ``patient``, ``therapist``, ``session`` and ``time`` lie along it. ``attrs["notes"]`` says which units were not
        in the fit and which rows were left out.

    Raises
    ------
    DataError
        A predictor is absent, missing in some rows, or not numeric; sessions of the fit that weights are made of are
        not among the new rows.
    SpecError
        An unknown target or kind; a new therapist asked of a model without therapists.

    Warns
    -----
    DesignWarning
        Therapists that were not in the fit, where the target asks for the therapist's own effect.

    Notes
    -----
    A decomposed predictor is split by the means of the fit for patients and therapists of the fit, and by the means of
    the new rows for others. AR(1) residuals carry on, under ``target="this_therapist"``, in sessions of a patient of
    the fit after the last one with an outcome: with e that session's residual in a draw and d sessions since,
    :math:`\phi^d e` is part of the expected outcome, and the new residual has the variance
    :math:`\sigma^2 (1 - \phi^{2d})`. In earlier sessions, for other patients and under the other targets residuals
    are drawn afresh. Within the new rows of a patient they correlate. Where each therapist has a residual SD, a
    therapist of the fit keeps it under every target (under ``new_therapist`` it is drawn with the effect where they
    correlate). For binary and ordinal outcomes the average therapist's curve is
    that of a typical patient; averaging draws of ``new_therapist`` gives the population's.

    A response with one value a patient or therapist is predicted at every row given, as if the unit's score were taken
    there.

    Where therapists share rows (``membership=``) the weights are made of the new rows as in the fit: the therapists'
    shares of the patient's sessions up to and including each row. Give all sessions of a patient so far, those of the
    fit included; they are looked for. Under ``new_therapist`` the new one has weight one.

    Examples
    --------
    >>> import psymech as psm
    >>> rows = psm.load_example("process_study").sessions.head(5)
    >>> psm.predict(course, rows, target="new_therapist", kind="draw", seed=1).mean(("chain", "draw")).sizes
    Frozen({'obs': 5})
    """
    for argument, value, allowed in (("target", target, get_args(Target)), ("kind", kind, get_args(Kind))):
        if value not in allowed:
            raise SpecError(f"{argument}: expected one of {', '.join(allowed)}, found {value!r}.")
    if target == "new_therapist":
        read.require_level(tree, "therapist")
    chosen = read.one_response(tree, response)
    given = checked_seed(seed)
    used = int(np.random.SeedSequence().generate_state(1)[0]) if given is None else given
    weighed = target in ("this_therapist", "new_patient")
    rows = new_rows(tree, newdata, response=chosen, weighed=weighed)
    eta = _fixed(tree, rows)
    notes = list(rows.notes)
    drawn_effects: Drawn = {}
    if target != "average_therapist":
        for position, level in enumerate(read.levels_of(tree)):
            drawn = level in DRAWN[target]
            rng = np.random.default_rng([used, position])
            drawn_effects[level] = _add_random(eta, tree, level, rows.Z[level], rows.units[level], drawn=drawn, rng=rng)
            if not drawn:
                notes += _unseen_note(level, rows.units[level])
    carried, said = _carried(tree, chosen, rows, target)
    notes += said
    values = (
        expected_outcome(tree, chosen, eta if carried is None else eta + _carried_mean(tree, chosen, rows, carried))
        if kind == "mean"
        else _outcome(tree, chosen, eta, rows, carried, drawn_effects, np.random.default_rng([used, len(names.LEVELS)]))
    )
    return _labelled(tree, values, rows).assign_attrs(
        target=target, kind=kind, response=chosen, seed=used, notes="\n".join(notes)
    )


def _flat(tree: xr.DataTree, name: str, *dims: str) -> np.ndarray:
    """Return a posterior variable with chain and draw as one leading axis."""
    values = read.posterior(tree)[name].transpose(*SAMPLE_DIMS, *dims).values
    return values.reshape(-1, *values.shape[2:])


def _fixed(tree: xr.DataTree, rows: NewRows) -> np.ndarray:
    draws = read.posterior(tree)
    known = read.labels_of(draws, TERM)
    take = [known.index(label) for label in rows.terms]
    return _flat(tree, names.BETA, TERM)[:, take] @ rows.X.T


def _add_random(
    eta: np.ndarray,
    tree: xr.DataTree,
    level: Level,
    z: np.ndarray,
    units: NewUnits,
    *,
    drawn: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Add a level's part to the linear predictor, shape (samples, rows), a few rows at a time; return which of the new
    data's units were drawn, and their effects (samples, units, terms).
    """
    own, weight = units.own[:, None], np.ones((units.own.size, 1))
    if units.members is not None:
        own, weight = units.members.code, units.members.weight
    known = units.index[own]
    fresh = np.unique(own if drawn else own[known == UNSEEN])
    effects = made = population_draws(tree, level, fresh.size, rng)
    if drawn or (known == UNSEEN).all():  # effects of the fit play no part, and it may have kept none
        n_fit = 0
    else:
        fitted = read.level_effects(tree, level).values
        n_fit = fitted.shape[2]
        effects = np.concatenate([fitted.reshape(-1, *fitted.shape[2:]), effects], axis=1)
    place = n_fit + np.minimum(np.searchsorted(fresh, own), max(fresh.size - 1, 0))
    index = place if drawn else np.where(known == UNSEEN, place, known)
    step = max(1, CHUNK_VALUES // effects.shape[0])
    for start in range(0, z.shape[0], step):
        rows = slice(start, start + step)
        for column, member in np.ndindex(z.shape[1], own.shape[1]):
            eta[:, rows] += effects[:, index[rows, member], column] * (z[rows, column] * weight[rows, member])
    return fresh, made


def population_draws(tree: xr.DataTree, level: Level, n_units: int, rng: np.random.Generator) -> np.ndarray:
    """Return effects of new units, N(0, Omega) in each posterior draw, shape (samples, n_units, terms)."""
    root = read.covariance_root(tree, level)
    noise = rng.standard_normal((root.shape[0], n_units, root.shape[-1]))
    return np.einsum("sij,snj->sni", root, noise)


def _unseen_note(level: Level, units: NewUnits) -> list[str]:
    unseen = units.unseen()
    if not unseen:
        return []
    if unseen == (NOBODY,):
        return [f"The new data name no {level}: the effect of one new {level} is drawn from the population."]
    text = (
        f"{len(unseen)} {level}(s) were not in the fit (unseen): {shown_ids(unseen)}. Their effects are drawn from the "
        f"population of {level}s, as for a new {level}."
    )
    if level != "patient":
        warnings.warn(text, DesignWarning, stacklevel=3)
    return [text]


def expected_outcome(tree: xr.DataTree, response: str, eta: np.ndarray) -> np.ndarray:
    """Return the expected outcome of linear predictors of shape (samples, rows)."""
    family = read.family_of(tree, response)
    if family == "bernoulli":
        return expit(eta)
    if family != "ordinal":
        return eta
    values = read.categories_of(tree, response)
    cut = _flat(tree, names.CUTPOINTS, names.THRESHOLD)
    out = np.full(eta.shape, values[0])
    for j, step in enumerate(np.diff(values)):
        out += step * expit(eta - cut[:, j, None])
    return out


def _is_autoregressive(tree: xr.DataTree) -> bool:
    return read.json_attr(tree, names.ATTR_SPEC).get("residual", "iid") == "ar1"


def _carried(
    tree: xr.DataTree, response: str, rows: NewRows, target: str
) -> tuple[LastResiduals | None, tuple[str, ...]]:
    """Last residuals of the fit that reach into the new rows, and a note; None where there are none."""
    known = np.unique(rows.units["patient"].known)
    known = known[known != UNSEEN]
    if target != "this_therapist" or not known.size or not _is_autoregressive(tree):
        return None, ()
    if read.saved_without_rows(tree):
        text = "The fit was saved without its sessions: AR(1) residuals are drawn afresh, not carried on from them."
        return None, (text,)
    found = last_residuals(tree, response, known)
    n = int(_follows(rows, found).sum())
    if not n:
        return None, ()
    return found, (f"In {n} row(s) after a patient's last session of the fit its AR(1) residual is carried on.",)


def _follows(rows: NewRows, last: LastResiduals) -> np.ndarray:
    """Which rows come after the last observed session of their patient."""
    known = rows.units["patient"].known
    column = np.where(known == UNSEEN, UNSEEN, last.column[np.maximum(known, 0)])
    ends = np.append(last.session, np.inf)  # the last entry answers for rows without one
    return rows.session > ends[column]


def _carried_mean(tree: xr.DataTree, response: str, rows: NewRows, last: LastResiduals) -> np.ndarray:
    """What the last residuals add to the expected outcome, (samples, rows)."""
    phi = read.per_response(tree, names.PHI, response).values.reshape(-1)
    out = np.zeros((phi.size, rows.row.size))
    for row in np.flatnonzero(_follows(rows, last)):
        column = last.column[rows.units["patient"].known[row]]
        out[:, row] = decay(phi, rows.session[row] - last.session[column]) * last.residual[:, column]
    return out


def _outcome(
    tree: xr.DataTree,
    response: str,
    eta: np.ndarray,
    rows: NewRows,
    carried: LastResiduals | None,
    drawn: Drawn,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return drawn outcomes, (samples, rows); independent Gaussian residuals are added to `eta` in place."""
    family = read.family_of(tree, response)
    if family == "bernoulli":
        return (rng.random(eta.shape) < expit(eta)).astype(float)
    if family == "ordinal":
        cut = _flat(tree, names.CUTPOINTS, names.THRESHOLD)
        latent = eta + rng.logistic(size=eta.shape)
        above = sum((latent > cut[:, j, None]).astype(np.int64) for j in range(cut.shape[1]))
        return read.categories_of(tree, response)[above]
    sd = _residual_sd(tree, response, rows, drawn, rng)
    if family == "student":
        nu = read.per_response(tree, names.NU, response).values.reshape(-1, 1)
        return eta + sd * rng.standard_t(nu, size=eta.shape)
    if _is_autoregressive(tree):
        phi = read.per_response(tree, names.PHI, response).values.reshape(-1)
        return eta + sd * _autoregressive(rng.standard_normal(eta.shape), phi, rows, carried, sd)
    step = max(1, CHUNK_VALUES // max(rows.row.size, 1))
    for start in range(0, eta.shape[0], step):
        part = slice(start, start + step)
        eta[part] += sd[part] * rng.standard_normal(eta[part].shape)
    return eta


def _residual_sd(tree: xr.DataTree, response: str, rows: NewRows, drawn: Drawn, rng: np.random.Generator) -> np.ndarray:
    """Return the residual SD of each row in each draw, (samples, rows), or (samples, 1) where all share one."""
    draws = read.posterior(tree)
    if names.LOG_SIGMA in draws:
        return _therapist_sd(tree, rows.units["therapist"], drawn.get("therapist"), rng)
    if not differs(tree):
        return read.residual_sd(tree, response).values.reshape(-1, 1)
    column = read.json_attr(tree, names.ATTR_SPEC)["residual_by"]
    labels = read.labels_of(draws, names.RESIDUAL_GROUP)
    if rows.groups is None:
        raise DataError(f"expected the column {column!r} in the new data: residual SDs differ by it (residual_by=).")
    asked = group_labels(rows.groups)
    unknown = sorted(set(asked) - set(labels))
    if unknown:
        raise DataError(
            f"column {column!r} of the new data: expected the groups of the fit, {shown_ids(labels)}, found "
            f"{shown_ids(unknown)}."
        )
    return _flat(tree, names.SIGMA, names.RESIDUAL_GROUP)[:, [labels.index(each) for each in asked]]


def _therapist_sd(
    tree: xr.DataTree, units: NewUnits, drawn: tuple[np.ndarray, np.ndarray] | None, rng: np.random.Generator
) -> np.ndarray:
    """Residual SD of each row's therapist; one drawn from the population for therapists the fit does not know, and,
    where the logarithms correlate with the effects, for those whose effects were drawn.
    """
    known = _flat(tree, names.LOG_SIGMA, "therapist")
    middle, spread = np.log(_flat(tree, names.SIGMA)), _flat(tree, names.SD_LOG_SIGMA)
    z = rng.standard_normal((middle.size, len(units.labels)))
    unseen = units.known == UNSEEN
    if names.CORR_LOG_SIGMA in read.posterior(tree) and drawn is not None:
        which, effects = drawn
        corr = _flat(tree, names.CORR_LOG_SIGMA)[:, None]
        first = effects[:, :, 0] / _flat(tree, names.sd("therapist"), names.term_dim("therapist"))[:, :1]
        z[:, which] = corr * first + np.sqrt(1.0 - corr**2) * z[:, which]
        unseen |= np.isin(units.own, which)
    fresh = middle[:, None] + spread[:, None] * z
    return np.exp(np.where(unseen, fresh[:, units.own], known[:, np.maximum(units.known, 0)]))


def _autoregressive(
    error: np.ndarray, phi: np.ndarray, rows: NewRows, carried: LastResiduals | None, sd: np.ndarray
) -> np.ndarray:
    """Turn independent errors into errors with Corr(e_s, e_t) = phi^|s - t| within each patient's rows, those after
    the fit's last session following its residual.
    """
    out = error.copy()
    patient, session = rows.units["patient"], rows.session
    after = np.zeros(session.size, dtype=bool) if carried is None else _follows(rows, carried)
    order = np.lexsort((session, patient.own))
    for before, row in zip([-1, *order[:-1]], order, strict=True):
        same = before >= 0 and patient.own[before] == patient.own[row]
        if carried is not None and after[row] and not (same and after[before]):
            column = carried.column[patient.known[row]]
            previous, gap = carried.residual[:, column] / sd[:, 0], session[row] - carried.session[column]
        elif same:
            previous, gap = out[:, before], session[row] - session[before]
        else:
            continue
        rho = decay(phi, gap)
        out[:, row] = rho * previous + np.sqrt(1.0 - rho**2) * error[:, row]
    return out


def _labelled(tree: xr.DataTree, values: np.ndarray, rows: NewRows) -> xr.DataArray:
    draws = read.posterior(tree)
    shape = (draws.sizes[CHAIN], draws.sizes[DRAW], rows.row.size)
    coords: dict[str, object] = {
        CHAIN: draws[CHAIN].values,
        DRAW: draws[DRAW].values,
        OBS: rows.row,
        "session": (OBS, rows.session),
        "time": (OBS, rows.time),
    }
    for level, units in rows.units.items():
        coords[level] = (OBS, np.array(units.labels, dtype=object)[units.own])
    return xr.DataArray(values.reshape(shape), dims=(*SAMPLE_DIMS, OBS), coords=coords, name="prediction")

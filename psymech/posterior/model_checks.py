"""check_model(): does the fitted model produce data like those observed? At the level of sessions, patients,
therapists.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.arguments import checked_seed
from psymech.posterior import discrepancies as stat
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows
from psymech.posterior.influence import therapist_influence
from psymech.posterior.model_report import Concern, ModelCheck, ModelReport, Status, Verdict
from psymech.posterior.prior_weight import prior_weight
from psymech.posterior.replicates import Chunk, Rows, law_of, linear, over_chunks, rows_of, thinned

Floats = NDArray[np.float64]

IMPROBABLE: Final = 0.005  # about ten checks a model: a right model then fails one in at most one report of ten
SD_RATIO: Final = 1.15  # an SD of means that is off by less changes no conclusion
CORRELATION: Final = 0.1  # residual autocorrelation below 0.1 changes intervals by less than a tenth
EXCESS: Final = 1.0  # of kurtosis
SPREAD_RATIO: Final = 1.15
NORMAL_SCORES: Final = 0.02  # loss of correlation with normal scores
FEWEST_DRAWS: Final = 20  # fewer say nothing on what is improbable
MIN_UNITS: Final = 8  # fewer units show neither shape nor spread
MIN_PAIRS: Final = 30
OUTSIDE: Final = "outside"
OUTSIDE_NOTED: Final = 0.02  # share of predicted outcomes beyond all observed ones


def check_model(tree: xr.DataTree, *, draws: int = 500, seed: int = 0) -> ModelReport:
    r"""Compare the data with data sets that the fitted model produces, level by level, from the tree alone.

    For thinned posterior draws of parameters :math:`\theta` and effects u a statistic T of the data is set beside
    the same statistic of a replicate :math:`\tilde y`, and :math:`p = P(T(\tilde y, \theta) \ge T(y, \theta) \mid
    y)` is estimated:

    * sessions (fitted patients and therapists): lag-one autocorrelation of residuals, heavy tails, and how much the
      size of residuals differs between patients;
    * patients: SD of patients' mean deviations, against *new* patients of the same therapists; shape of the effects;
    * therapists (and clinics): SD of their mean deviations, against new therapists with new patients; shape of the
      effects; whether a single therapist drives the answer (Pareto k of leaving the therapist out); whether the
      prior of the SD does.

    New units make the check sharper than effects that were fitted to the same data (Marshall & Spiegelhalter 2003). The
    shape is one minus the correlation of sorted effects with normal scores; effects that the data hardly inform follow
    their prior, so it finds gross departures only. A check fails where p is below 0.005 or above 0.995 *and* the
    difference is large enough to matter; with fewer than 200 draws, where no replicate lies on the other side of the
    data, and with fewer than 20 nothing is judged. It costs one pass over the rows per draw, in chunks.

    Parameters
    ----------
    tree
        A fitted tree with its data.
    draws
        Posterior draws used, evenly spaced.
    seed
        Of the replicates.

    Returns
    -------
    ModelReport
        Prints as plain text; ``.doubtful("variance")`` lists the failed checks that make a kind of number doubtful.

    Raises
    ------
    DataError
        The tree was saved without its data.

    References
    ----------
    Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies, Statistica
    Sinica 6, 733-807. Marshall & Spiegelhalter (2003), Approximate cross-validatory predictive checks in disease
    mapping models, Statistics in Medicine 22, 1649-1660.

    Examples
    --------
    >>> import psymech as psm
    >>> print(psm.check_model(tree))
    Model: ok
      ok   session   residual autocorrelation ...
    """
    checked_seed(seed)
    checks: list[ModelCheck] = []
    notes: list[str] = []
    several = len(read.responses_of(tree)) > 1
    for position, response in enumerate(read.responses_of(tree)):
        rows = rows_of(tree, response)
        rng = np.random.default_rng([seed, position])
        found, outside = _compare(tree, rows, draws, rng)
        if several:
            notes += [f"{response}: {note}" for note in outside]
        else:
            notes += outside
        checks += found
    checks += _shapes(tree, draws, np.random.default_rng([seed, len(read.responses_of(tree))]))
    checks += therapist_influence(tree)
    checks += prior_weight(tree)
    notes += rests_on(tree)
    return ModelReport(_verdict(checks), tuple(checks), tuple(notes))


def _verdict(checks: Iterable[ModelCheck]) -> Verdict:
    found = {check.status for check in checks}
    if "failed" in found:
        return "not ok"
    return "ok" if "ok" in found else "not assessable"


def rests_on(tree: xr.DataTree) -> list[str]:
    """Say how many therapists (patients, where there are none) the answer rests on, and how unevenly."""
    levels = read.levels_of(tree)
    upper = [level for level in levels if level != "patient"]
    if not upper:
        n = read.posterior(tree).sizes["patient"] if "patient" in levels else 0
        return [f"The answer rests on {n} patients; nothing can be said about therapists."]
    notes = []
    for level in upper:
        patients = patient_of_rows(tree)
        pairs = read.unit_pairs(tree, level, patients, read.rows_at_risk(tree, level))
        counts = np.bincount(pairs[:, 0], minlength=read.posterior(tree).sizes[level])[
            read.units_with_rows(tree, level)
        ]
        share = 100.0 * counts.max() / max(np.unique(pairs[:, 1]).size, 1)
        notes.append(
            f"What is said about {level}s rests on {len(counts)} {level}s with a median of {np.median(counts):g} "
            f"patients each; the largest {level} has {share:.0f}% of all patients."
        )
    return notes


def _compare(tree: xr.DataTree, rows: Rows, draws: int, rng: np.random.Generator) -> tuple[list[ModelCheck], list[str]]:
    """Sessions and means of units of one response: data against replicates."""
    levels = [level for level in read.levels_of(tree) if _varies(tree, rows, level)]
    gaussian = rows.family in read.IDENTITY_LINK
    has_residual = rows.unit["patient"].size > np.unique(rows.unit["patient"]).size
    successive = stat.successive(rows)
    pairs = successive.size >= MIN_PAIRS and has_residual
    spread = (np.bincount(rows.unit["patient"]) >= stat.MIN_ROWS_FOR_SPREAD).sum() >= MIN_UNITS and has_residual
    at_risk = {level: np.flatnonzero(np.isin(rows.index, read.rows_at_risk(tree, level))) for level in levels}
    low, high = rows.y.min(), rows.y.max()
    law = law_of(tree, rows)

    def statistics(chunk: Chunk, rng: np.random.Generator) -> dict[str, tuple[Floats, Floats]]:
        """Each statistic of the data and of replicates, whose residuals are the same at all levels."""
        made = {}
        noise = law.noise(chunk.draw, rng)
        eta = linear(chunk)
        mean, drawn = law.expected(eta, chunk.draw), law.outcome(eta, noise, chunk.draw)
        data, model = rows.y - mean, drawn - mean
        if pairs:
            made["lag"] = stat.lag_one(data, successive), stat.lag_one(model, successive)
        if gaussian and has_residual:
            made["tails"] = stat.kurtosis(data), stat.kurtosis(model)
            made[OUTSIDE] = ((drawn < low) | (drawn > high)).mean(axis=1), np.zeros(len(drawn))
            if spread:
                made["spread"] = stat.spread_over_patients(data, rows), stat.spread_over_patients(model, rows)
        for position, level in enumerate(levels):
            new, at = tuple(levels[: position + 1]), at_risk[level]
            mean = law.expected(linear(chunk, without=new), chunk.draw)
            drawn = law.outcome(linear(chunk, anew=new), noise, chunk.draw)
            data, model = rows.y - mean, drawn - mean
            if at.size < rows.y.size:
                data, model = data[:, at], model[:, at]
            unit = rows.unit[level][at]
            made[level] = stat.sd_of_means(data, unit), stat.sd_of_means(model, unit)
        return made

    parts = over_chunks(statistics, tree, rows, draws=draws, rng=rng)
    outside = [part.pop(OUTSIDE)[0] for part in parts if OUTSIDE in part]
    checks = []
    for name in parts[0]:
        data, model = (np.concatenate([part[name][side] for part in parts]) for side in (0, 1))
        checks.append(_worded(name, rows, data, model))
    notes = []
    share = float(np.concatenate(outside).mean()) if outside else 0.0
    if share > OUTSIDE_NOTED:
        notes.append(
            f"{100 * share:.0f}% of the outcomes that the model predicts lie outside the observed range "
            f"({low:g} to {high:g}): means and slopes are little affected, predictions of single sessions are."
        )
    return checks, notes


def _varies(tree: xr.DataTree, rows: Rows, level: str) -> bool:
    """Whether the level has random terms for this response and enough units with rows."""
    z = read.design_rows(tree, level, rows.index)
    at_risk = np.isin(rows.index, read.rows_at_risk(tree, level))
    return bool(z.any()) and np.unique(rows.unit[level][at_risk]).size >= MIN_UNITS


def _worded(name: str, rows: Rows, data: Floats, model: Floats) -> ModelCheck:
    if name == "lag":
        big = abs(data.mean() - model.mean()) > CORRELATION
        return _check(
            "residual autocorrelation",
            "session",
            rows.response,
            data,
            model,
            big,
            ("effects", "variance"),
            "Residuals of successive sessions of one patient correlate {observed:.2f}; the model expects {low:.2f} to "
            "{high:.2f}. Intervals of effects within patients are too narrow.",
            "Fit with residual='ar1' (a mediation model: autoregressive=), or let time vary over patients.",
        )
    if name == "tails":
        return _check(
            "heavy tails (kurtosis)",
            "session",
            rows.response,
            data,
            model,
            data.mean() > model.mean() + EXCESS,
            (),
            "Residuals have heavier tails (kurtosis {observed:.1f}) than the model expects ({low:.1f} to {high:.1f}).",
            "Look for typing errors; fit with family='student' and compare.",
        )
    if name == "spread":
        return _check(
            "unequal residual SDs",
            "session",
            rows.response,
            data,
            model,
            data.mean() > SPREAD_RATIO * model.mean(),
            (),
            "The size of residuals differs more between patients (SD of the logarithm {observed:.2f}) than one "
            "residual SD "
            "for all allows ({low:.2f} to {high:.2f}): single patients' intervals are too wide or too narrow.",
            "",
        )
    ratio = data.mean() / model.mean() if model.mean() > 0 else np.inf
    return _check(
        f"SD of {name} means",
        name,
        rows.response,
        data,
        model,
        max(ratio, 1 / ratio) > SD_RATIO,
        ("variance", "therapists"),
        f"{name.capitalize()}s' mean deviations have an SD of {{observed:.2f}}; new {name}s of the model "
        f"{{low:.2f}} to "
        "{high:.2f}.",
        f"Look at plot_ppc(tree, level={name!r}); let slopes vary over {name}s, or add {name} covariates.",
    )


def _check(
    name: str,
    level: str,
    response: str,
    data: Floats,
    model: Floats,
    big: bool | np.bool_,
    concerns: tuple[Concern, ...],
    text: str,
    remedy: str,
) -> ModelCheck:
    p = (1.0 + float((model >= data).sum())) / (1.0 + data.size)
    smallest = 1.0 / (1.0 + data.size)
    extreme = min(p, 1.0 - p + smallest) <= max(IMPROBABLE, smallest)
    low, high = np.quantile(model, [0.005, 0.995])
    status: Status = "failed" if extreme and bool(big) else "ok"
    if data.size < FEWEST_DRAWS:
        status, text = "not assessed", f"Cannot be judged from {data.size} draws."
        remedy = "Use 200 draws or more."
    observed = float(data.mean())
    return ModelCheck(
        name=name,
        level=level,
        response=response,
        observed=observed,
        low=float(low),
        high=float(high),
        probability=p,
        status=status,
        concerns=concerns if status == "failed" else (),
        text=text.format(observed=observed, low=low, high=high),
        remedy="" if status == "ok" else remedy,
    )


def _shapes(tree: xr.DataTree, draws: int, rng: np.random.Generator) -> list[ModelCheck]:
    """Effects of units against a normal distribution, term by term."""
    found = []
    posterior = read.posterior(tree)
    for level in read.levels_of(tree):
        dim = names.term_dim(level)
        labels = read.labels_of(posterior, dim)
        every = read.level_effects(tree, level).values
        flat = every.reshape(-1, *every.shape[2:])[thinned(tree, draws)][:, read.units_with_rows(tree, level)]
        n_units = flat.shape[1]
        if n_units < MIN_UNITS:
            found.append(_few_units(level, n_units))
            continue
        for j, label in enumerate(labels):
            effects = flat[:, :, j]
            data = stat.departure_from_normal(effects)
            model = stat.departure_from_normal(rng.standard_normal(effects.shape))
            owner = next((r for r in read.responses_of(tree) if label.startswith(read.response_label(r, ""))), "")
            found.append(
                _check(
                    f"normality of {label}",
                    level,
                    owner,
                    data,
                    model,
                    data.mean() > model.mean() + NORMAL_SCORES,
                    ("therapists",) if level != "patient" else (),
                    f"The {level}s' effects in {label} are not normally distributed (loss of correlation with "
                    f"normal scores "
                    "{observed:.3f}; the model expects {low:.3f} to {high:.3f}).",
                    f"Look for groups of {level}s or single outlying ones (plot_therapists), and for a missing "
                    f"{level} covariate.",
                )
            )
    return found


def _few_units(level: str, n_units: int) -> ModelCheck:
    return ModelCheck(
        name="normality",
        level=level,
        response="",
        observed=np.nan,
        low=np.nan,
        high=np.nan,
        probability=np.nan,
        status="not assessed",
        concerns=(),
        text=f"The shape of the {level}s' effects cannot be judged from {n_units} {level}s.",
        remedy="",
    )

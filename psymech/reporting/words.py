"""A fit in words: the question, the equation, what each number means, limits, and a paragraph for a paper."""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from markupsafe import Markup

from psymech import names
from psymech.errors import PsymechError
from psymech.names import INTERCEPT
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows, rows_of_sessions
from psymech.posterior.shared_rows import nested_in
from psymech.posterior.summaries import interval_kind
from psymech.posterior.tree import TermInfo
from psymech.reporting.gate import Gate

FEW_THERAPISTS: Final = 20
EFFECT_LETTER: Final = {"patient": "u", "therapist": "v", "clinic": "w"}
INDEX: Final = {"session": "t", "patient": "i", "therapist": "k", "clinic": "c"}
THRESHOLD: Final = "κ"
LOG_TIME: Final = "log(1 + time since the earliest)"
FAMILY_WORDS: Final = {
    "gaussian": "linear",
    "student": "linear, with Student-t residuals,",
    "bernoulli": "logistic",
    "ordinal": "cumulative logistic",
}


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as an enumeration.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    every = list(words)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} {last} {every[-1]}" if every else ""


def unit_of_scores(tree: xr.DataTree) -> str:
    """Return what has one value of each outcome: the lowest of the outcomes' levels."""
    own = {read.level_of_response(tree, response) for response in read.responses_of(tree)}
    return next(level for level in INDEX if level in own)


def readable(label: str) -> str:
    """Return a term's label as a page shows it: the outcome that it belongs to before a colon, once in a difference.

    >>> readable("phq9~alliance.patient - phq9~alliance.within")
    'phq9: alliance.patient - alliance.within'
    """
    outcome, mark, _ = label.partition("~")
    return label.replace(f" - {outcome}{mark}", " - ").replace("~", ": ") if mark else label


def counts(tree: xr.DataTree) -> dict[str, int]:
    """Numbers of sessions (where an outcome has one value a session) and of units with a row, by level."""
    try:
        data = read.constants(tree, columns=False)
        rows = np.isfinite(read.outcome(tree))
    except PsymechError:
        return {level: read.posterior(tree).sizes[level] for level in read.levels_of(tree)}
    patient = patient_of_rows(tree)
    found: dict[str, int] = {}
    at = rows_of_sessions(tree)
    if at.size:
        pairs = np.stack([patient, data[names.SESSION_OF_OBS].values])[:, at[rows[at]]]
        found["session"] = np.unique(pairs, axis=1).shape[1]
    found["patient"] = np.unique(patient[rows]).size
    for level in ("therapist", "clinic"):
        if names.group_of_obs(level) in data:
            at_risk = np.intersect1d(np.flatnonzero(rows), read.rows_at_risk(tree, level))
            found[level] = np.unique(read.unit_pairs(tree, level, patient, at_risk)[:, 0]).size
    return found


def crossed(tree: xr.DataTree) -> bool:
    """Whether some patients had rows with several therapists."""
    try:
        data = read.constants(tree, columns=False)
    except PsymechError:
        return False
    therapist = names.group_of_obs("therapist")
    return therapist in data and not nested_in(patient_of_rows(tree), data[therapist].values)


def question(tree: xr.DataTree) -> str:
    """Return the question that the model answers."""
    spec = read.json_attr(tree, names.ATTR_SPEC)
    responses = listed(read.responses_of(tree))
    columns = {role: _columns(tree, role) for role in ("technique", "common_factor")}
    if spec["kind"] == "growth":
        return f"How does {responses} change over time, and how much do {_who(tree)} differ in its course?"
    if spec["kind"] == "mediation":
        roles: dict[str, list[str]] = {}
        for column, role in spec["roles"]:
            roles.setdefault(str(role).removeprefix("serial_"), []).append(str(column))
        treatments, mediators, outcomes = (listed(roles.get(each, [])) for each in ("treatment", "mediator", "outcome"))
        return f"Does {treatments} go with {outcomes} through {mediators}, and how much directly?"
    ingredients = [*columns["technique"], *columns["common_factor"]]
    if spec["kind"] == "process" and ingredients:
        return f"Do {listed(ingredients)} go with {responses}, session by session, and how much do {_who(tree)} differ?"
    predictors = list(dict.fromkeys(i.column for i in read.terms_of(tree) if i.column and i.role != "time"))
    if predictors:
        return f"What goes with {responses}: {listed(predictors, 'or')}? And how much do {_who(tree)} differ?"
    return f"How much do {_who(tree)} differ in {responses}?"


def _columns(tree: xr.DataTree, role: str) -> list[str]:
    return list(dict.fromkeys(info.column for info in read.terms_of(tree) if info.role == role and info.column))


def _who(tree: xr.DataTree) -> str:
    return listed([f"{level}s" for level in read.levels_of(tree)]) or "patients"


def equations(tree: xr.DataTree) -> list[Markup]:
    """Return the model, one line of markup each; every name is escaped."""
    lines = [_equation(tree, response) for response in read.responses_of(tree)]
    posterior = read.posterior(tree)
    for level in read.levels_of(tree):
        letter = EFFECT_LETTER[level]
        n = posterior.sizes[names.term_dim(level)]
        kind = "Ω" if n > 1 else "σ²"
        shared = (
            f"; shared by weights that sum to one, Σ {letter} · weight" if level in read.shared_levels(tree) else ""
        )
        lines.append(
            Markup("{} ~ N(0, {}<sub>{}</sub>) over {}s{}").format(
                letter, kind, letter, level, (_correlated(posterior, level) if n > 1 else "") + shared
            )
        )
    residual = _residual(tree)
    return [*lines, residual] if residual else lines


def _correlated(posterior: xr.Dataset, level: str) -> str:
    if names.corr(level) not in posterior:
        return ", independent of each other"
    values = posterior[names.corr(level)].values
    off = values[..., ~np.eye(values.shape[-1], dtype=bool)]
    return ", correlated with each other" if np.any(off != 0) else ", independent of each other"


def _equation(tree: xr.DataTree, response: str) -> Markup:
    family = read.family_of(tree, response)
    left = {
        "bernoulli": Markup("logit P({}<sub>{}</sub> = 1)"),
        "ordinal": Markup("logit P({}<sub>{}</sub> &gt; j)"),
    }.get(family, Markup("{}<sub>{}</sub>"))
    own = read.level_of_response(tree, response)
    above = list(INDEX)[list(INDEX).index(own) + 1 :]
    subscript = INDEX[own] + "".join(INDEX[level] for level in above if level in read.levels_of(tree))
    several = len(read.responses_of(tree)) > 1
    mine = [info for info in read.terms_of(tree) if not several or info.response == response]
    parts = [] if family != "ordinal" else [Markup("−κ<sub>j</sub>")]
    for position, info in enumerate(mine):
        label = _plain(info.label, response)
        product = Markup("") if label == INTERCEPT else Markup(" · {}").format(label)
        parts.append(Markup("β<sub>{}</sub>{}").format(position, product))
    for level in read.levels_of(tree):
        letter = EFFECT_LETTER[level]
        labels = read.labels_of(read.posterior(tree), names.term_dim(level))
        own = [each for each in labels if not several or each.startswith(read.response_label(response, ""))]
        terms = []
        for position, each in enumerate(own):
            label = _plain(each, response)
            product = Markup("") if label == INTERCEPT else Markup(" · {}").format(label)
            terms.append(Markup("{}<sub>{}{}</sub>{}").format(letter, position, INDEX[level], product))
        parts += terms
    if family in read.IDENTITY_LINK:
        parts.append(Markup("e<sub>{}</sub>").format(subscript))
    return left.format(response, subscript) + Markup(" = ") + Markup(" + ").join(parts)


def _plain(label: str, response: str) -> str:
    return label.removeprefix(read.response_label(response, ""))


def _residual(tree: xr.DataTree) -> Markup | None:
    posterior = read.posterior(tree)
    if names.NU in posterior:
        return Markup("e ~ Student-t(ν, 0, σ)")
    if names.PHI in posterior:
        return Markup("e ~ N(0, σ²), residuals d sessions apart correlate φ<sup>d</sup>")
    if names.CORR_LOG_SIGMA in posterior:
        return Markup(
            "e ~ N(0, σ<sub>k</sub>²) for therapist k, log σ<sub>k</sub> ~ N(log σ, τ²), correlated with v<sub>k</sub>"
        )
    if names.LOG_SIGMA in posterior:
        return Markup("e ~ N(0, σ<sub>k</sub>²) for therapist k, log σ<sub>k</sub> ~ N(log σ, τ²)")
    if names.SIGMA in posterior and names.RESIDUAL_GROUP in posterior[names.SIGMA].dims:
        column = read.json_attr(tree, names.ATTR_SPEC)["residual_by"]
        return Markup("e ~ N(0, σ²), one σ for each value of {}").format(column)
    if names.SIGMA in posterior and names.RESPONSE in posterior[names.SIGMA].dims:
        together = f", correlated within a {unit_of_scores(tree)}" if names.RESIDUAL_CORR in posterior else ""
        return Markup("e ~ N(0, σ²), one σ for each outcome") + together
    if names.SIGMA in posterior:
        return Markup("e ~ N(0, σ²)")
    return None


def letters(tree: xr.DataTree) -> str:
    """Return what the letters of the equations stand for, those that this model has."""
    lowest = unit_of_scores(tree)
    levels = [level for level in INDEX if level == lowest or level in read.levels_of(tree)]
    found = f"{', '.join(f'{INDEX[level]}: {level}' for level in levels)}. β: the same for all; "
    effects = [level for level in EFFECT_LETTER if level in read.levels_of(tree)]
    if effects:
        single = listed([f"{level}s" for level in effects])
        found += f"{', '.join(EFFECT_LETTER[level] for level in effects)}: deviations of single {single}; "
    if names.CUTPOINTS in read.posterior(tree):
        found += f"{THRESHOLD}: thresholds between categories j and j + 1; "
    if len(read.responses_of(tree)) > 1:
        found += "each line has coefficients and deviations of its own; "
    return f"{found.removesuffix('; ')}."


def levels_drawn(tree: xr.DataTree) -> list[tuple[str, str]]:
    """Return, from the highest level to sessions, a heading and what varies there: the model as nested boxes."""
    number = counts(tree)
    found = []
    lowest = unit_of_scores(tree)
    for level in ("clinic", "therapist", "patient"):
        if level in number and level != lowest:
            has = level in read.levels_of(tree)
            labels = read.labels_of(read.posterior(tree), names.term_dim(level)) if has else ()
            varying = listed([readable(label) for label in labels])
            text = f"varying: {varying}" if has else "no random terms"
            across = "; patients cross from one to another" if level == "therapist" and crossed(tree) else ""
            found.append((f"{number[level]:,} {level}s", text + across))
    bottom = f"{number[lowest]:,} {lowest}s" if lowest in number else f"{lowest}s"
    if lowest != "session":
        bottom += ", one score each" if len(read.responses_of(tree)) == 1 else ", one score of each outcome"
    residual = _residual(tree)
    found.append((bottom, f"residual: {residual.striptags()}" if residual else "no residual of its own"))
    return found


def estimand(info: TermInfo, tree: xr.DataTree) -> str:
    """Return in words what a fixed effect is the expected difference between."""
    response = info.response or read.responses_of(tree)[0]
    family = read.family_of(tree, response)
    higher = "a higher " if family == "ordinal" else ""
    unit = response if family in read.IDENTITY_LINK else f"log odds of {higher}{response}"
    average = "average " if read.level_of_response(tree, response) == "session" else ""
    column = info.column
    if info.role == "intercept":
        return f"Expected {unit} where every column is zero, for the average patient of the average therapist."
    if info.role == "time":
        per = {"linear": "time, as given in the data", "log": LOG_TIME}.get(_shape(tree), "this column of time")
        return f"Change of {unit} per unit of {per}."
    if info.role == "autoregressive":
        return f"Carry-over: difference in {unit} per unit of the value of the session before."
    if len(info.factors) > 1 or info.role == "interaction":
        return "How much one effect changes per unit of the other column."
    words = {
        "within": f"Same patient, {_when(info)} {column} one unit above the patient's own average: difference in "
        f"{unit}.",
        "patient": f"Same therapist, a patient whose average {column} is one unit higher: difference in {average}"
        f"{unit}.",
        "therapist": f"A therapist whose patients' average {column} is one unit higher: difference in {average}{unit}.",
    }
    return words.get(info.part, f"Difference in {unit} per unit of {column or info.label}.") + " All else equal."


def _when(info: TermInfo) -> str:
    lag = max((int(factor["lag"]) for factor in _factors(info)), default=0)
    return {0: "a session with", 1: "a session after one with"}.get(lag, f"a session {lag} sessions after one with")


def limits(tree: xr.DataTree, gate: Gate) -> list[str]:
    """Return what a reader must not conclude."""
    spec = read.json_attr(tree, names.ATTR_SPEC)
    infos = read.terms_of(tree)
    found = ["The model describes associations; they are effects of a cause only as far as the study's design allows."]
    number = counts(tree)
    parts = {info.part for info in infos}
    if "within" in parts:
        found.append(
            "Effects within patients are free of everything that is constant about a patient, not of what changes from "
            "session to session together with the predictor."
        )
        if not _lagged(tree):
            found.append("Predictor and outcome belong to the same session: which of the two came first is not known.")
    if parts & {"patient", "therapist"} and spec.get("decompose") == "observed":
        found.append(
            "Effects between patients and between therapists use observed averages, which hold measurement error: "
            "with few "
            "sessions or patients each they are drawn towards the effect of the level below."
        )
    therapists = number.get("therapist", 0)
    of_priors = [str(note) for note in json.loads(tree.attrs.get(names.ATTR_PRIOR_NOTES, "[]"))]
    if 0 < therapists < FEW_THERAPISTS and not any(f"only {therapists} therapists" in note for note in of_priors):
        found.append(f"There are {therapists} therapists: the prior decides much of what is said about differences.")
    if "therapist" in read.levels_of(tree):
        found.append(
            "Patients were not assigned to therapists by lot, unless the study says so: differences between "
            "therapists may be "
            "differences between their patients. Ranks are uncertain; their intervals belong to them."
        )
    found.append(
        "Missing outcomes are taken to be missing at random given what the model contains; patients who left "
        "because they "
        "were better or worse than the model expects would distort the results."
    )
    if gate.model is not None:
        found += list(gate.model.notes)
    found += of_priors
    return list(dict.fromkeys(found))


def _lagged(tree: xr.DataTree) -> bool:
    factors = [f for entry in read.json_attr(tree, names.ATTR_TERMS) for f in entry.get("factors") or ()]
    return any(isinstance(f, dict) and f.get("lag", 0) > 0 and f.get("part") != "raw" for f in factors)


def versions(tree: xr.DataTree) -> dict[str, str]:
    """Return the versions that made the fit, as far as it says."""
    text = tree.attrs.get(names.ATTR_LIBRARIES)
    found: dict[str, Any] = json.loads(text) if text else {}
    return found | {"psymech": str(tree.attrs.get(names.ATTR_VERSION, "unknown"))}


def methods(tree: xr.DataTree, gate: Gate, ci_percent: str) -> str:
    """Return a paragraph for the methods section of a paper."""
    number = counts(tree)
    levels = [level for level in ("session", "patient", "therapist", "clinic") if level in number]
    sizes = [f"{number[level]:,} {level}s" for level in levels]
    nested = listed(sizes) if crossed(tree) else " in ".join(sizes)
    family = FAMILY_WORDS.get(read.family_of(tree, read.responses_of(tree)[0]), "generalised linear")
    posterior = read.posterior(tree)
    draws = posterior.sizes
    made = versions(tree)
    sampler = str(tree.attrs.get(names.ATTR_SAMPLER, "?"))
    software = ", ".join(f"{name} {made[name]}" for name in ("pymc", sampler) if name in made)
    by_name = {figure.name: figure.value for figure in gate.sampling.figures}
    rhat = by_name.get("R-hat, largest")
    ess = by_name.get("ESS bulk, smallest")
    fixed = [info.label for info in read.terms_of(tree) if info.role != "intercept"]
    random = [
        f"{listed([readable(each) for each in read.labels_of(posterior, names.term_dim(level))])} over {level}s"
        for level in read.levels_of(tree)
    ]
    spec = read.json_attr(tree, names.ATTR_SPEC)
    kind = "highest-density intervals" if interval_kind() == "hdi" else "central posterior intervals"
    collapsed = tree.attrs.get(names.ATTR_ENGINE) == "collapsed"
    recovered = "; random effects were integrated out analytically and drawn exactly afterwards" if collapsed else ""
    sentences = [
        f"We fitted a Bayesian {family} multilevel model of {listed(read.responses_of(tree))} ({nested}).",
        f"Fixed effects: {listed([readable(label) for label in fixed])}." if fixed else "",
        f"Random terms: {'; '.join(random)}." if random else "",
        _timing(tree),
        f"Therapists' effects entered for patients with {spec['therapist_in']} = 1 only (partial nesting)."
        if spec.get("therapist_in")
        else "",
        f"Each value of {spec['residual_by']} had a residual SD of its own."
        if spec.get("residual_by") and names.LOG_SIGMA not in posterior
        else "",
        "Each therapist had a residual SD of their own (location-scale model)." if names.LOG_SIGMA in posterior else "",
        "Predictors were split into deviations from the patient's mean, of patients' means from the therapist's, and "
        "therapists' means."
        if spec.get("decompose") == "observed" and any(i.part == "within" for i in read.terms_of(tree))
        else "",
        "Predictors were split into deviations from the latent means of patients and therapists, which were estimated "
        "with the model."
        if spec.get("decompose") == "latent"
        else "",
        f"{posterior.sizes[names.MISSING]:,} missing values of mediators were parameters of the model, missing at "
        "random given what it contains."
        if names.MISSING in posterior.sizes
        else "",
        "Patients were crossed with therapists: a session belongs to the therapist who held it."
        if crossed(tree) and not read.shared_levels(tree)
        else "",
        "Patients who changed therapist were shared among their therapists in proportion to sessions (multiple "
        "membership)."
        if read.shared_levels(tree)
        else "",
        "Residuals followed a first-order autoregressive process along the sessions of a patient."
        if names.PHI in read.posterior(tree)
        else "",
        "Priors are listed in the table of priors.",
        f"Posterior draws ({draws[names.CHAIN]} chains of {draws[names.DRAW]:,} after {tree.attrs.get('tune', '?')} of "
        f"warm-up, seed {tree.attrs.get(names.ATTR_SEED, '?')}) were made with psymech {made['psymech']}"
        f"{f' ({software})' if software else ''}, sampler {sampler}"
        f"{recovered}.",
        f"The largest R-hat of a population parameter was {rhat:.3f}, the smallest effective sample size {ess:.0f}."
        if rhat is not None and ess is not None
        else "",
        f"Intervals are {ci_percent} {kind}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _timing(tree: xr.DataTree) -> str:
    """Which session the predictors are of, and the shape of time, where these are not the plain ones."""
    lags: dict[int, list[str]] = {}
    for info in read.terms_of(tree):
        for factor in _factors(info):
            if factor["lag"] > 0 and info.role != "autoregressive":
                lags.setdefault(factor["lag"], []).append(factor["column"])
    said = [
        f"Deviations of {listed(list(dict.fromkeys(columns)))} within patients were those of "
        f"{'the session before' if lag == 1 else f'{lag} sessions before'}."
        for lag, columns in sorted(lags.items())
    ]
    shape = _shape(tree)
    if shape != "linear" and any(info.role == "time" for info in read.terms_of(tree)):
        said.append(f"Time entered as {LOG_TIME if shape == 'log' else f'a {shape} basis'}.")
    return " ".join(said)


def _factors(info: TermInfo) -> list[dict[str, Any]]:
    return [found for found in map(json.loads, info.factors) if isinstance(found, dict)]


def _shape(tree: xr.DataTree) -> str:
    given = read.json_attr(tree, names.ATTR_SPEC).get("time")
    return str(given["kind"]) if given else "linear"

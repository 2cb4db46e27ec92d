"""make_design(): a specification and a table become the arrays of the model, with every row left out accounted for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from psymech import names
from psymech.arguments import instance
from psymech.columns import column_source, level_notes, settle_levels
from psymech.data.checks import check_collinear, check_column, check_data, check_levels, data_report
from psymech.data.column_checks import check_rare, check_slope
from psymech.data.design_report import DesignReport
from psymech.data.findings import Finding
from psymech.data.outcome_checks import check_categories, check_determined, check_outcome
from psymech.data.sessions import SessionData, refuse_other_data
from psymech.errors import DesignError, PsymechError
from psymech.imputation import Imputation, imputation_note, make_imputation, missing_values, with_first_guess
from psymech.joined import Pooling, SlopePredictors, correlated_responses, make_pooling, make_slope_predictors
from psymech.latent_rows import LatentDesign, latent_design, latent_rows
from psymech.level_design import LevelDesign, level_designs
from psymech.names import Level
from psymech.residual_groups import ResidualGroups, refuse_other_values, residual_groups
from psymech.rows import response_rows
from psymech.spec.model import THERAPIST, Family, ModelSpec, ResidualKind, Term, response_label
from psymech.timebasis import TimeBasis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MODEL = "a model, such as psymech.growth('phq9')"


@dataclass(frozen=True, slots=True)
class Design:
    """The model's arrays. Rows are (session, response) pairs with an observed response, in the data's order.

    Attributes
    ----------
    y : (n_obs,) response; categories of an ordinal response are coded 0, 1, ....
    X : (n_obs, n_terms) fixed-effect columns, named by `terms`; `roles` says what each column is.
    levels : random columns, lowest level first; every level of the data that the model uses.
    response : (n_obs,) index into `responses`; term_response : (n_terms,) the response that each column belongs to.
    previous : (n_obs,) index of the same patient's and response's preceding row, or -1; gap : sessions in between.
    row : (n_obs,) index into the sessions of the data.
    unit_means : by level and column, the means that split the decomposed variables, one a unit of `unit_ids`.
    unit_ids : by level, ids of the units that the rows use, also where the level has no random effects.
    roles : the columns that played the roles; patient_ids : how patients' ids were read.
    residual_by : groups of rows that have a residual SD each; sd_by_therapist : whether each therapist has one;
        sd_with_effects : whether its logarithm correlates with the therapists' effects.
    latent : columns of X and Z that are parameters, for which these hold deviations from observed means as stand-ins.
    imputation : mediators missing where a row refers to them; X and Z hold first guesses there.
    pooled, slope_predictors : coefficients pooled over outcomes, and patients' effects that predict outcomes.
    correlated_responses : indices of the responses whose residuals correlate.
    """

    y: Floats
    X: Floats
    terms: tuple[str, ...]
    term_specs: tuple[Term, ...]
    term_response: Ints
    levels: tuple[LevelDesign, ...]
    response: Ints
    responses: tuple[str, ...]
    family: Family
    categories: tuple[float, ...]
    residual: ResidualKind
    row: Ints
    session: Floats
    time: Floats
    previous: Ints
    gap: Floats
    time_basis: TimeBasis | None
    unit_means: Mapping[Level, Mapping[str, Floats]]
    nested: bool
    report: DesignReport
    unit_ids: Mapping[Level, NDArray] = field(default_factory=dict)
    roles: Mapping[str, str | None] = field(default_factory=dict)
    patient_ids: str = "unique"
    residual_by: ResidualGroups | None = None
    sd_by_therapist: bool = False
    sd_with_effects: bool = False
    latent: LatentDesign | None = None
    imputation: Imputation | None = None
    pooled: Pooling | None = None
    slope_predictors: SlopePredictors | None = None
    correlated_responses: tuple[int, ...] = ()

    @property
    def sd_code(self) -> Ints:
        """Index of each row's residual SD: its group, else its response."""
        return self.response if self.residual_by is None else self.residual_by.code

    @property
    def sd_labels(self) -> tuple[str, ...]:
        """What the residual SDs belong to: groups, else responses."""
        return self.responses if self.residual_by is None else self.residual_by.labels

    @property
    def n_obs(self) -> int:
        """Number of rows of the likelihood."""
        return len(self.y)

    def level(self, name: str) -> LevelDesign | None:
        """Return the design of a level, or None where the model has no such level."""
        return next((level for level in self.levels if level.level == name), None)


def make_design(spec: ModelSpec, data: SessionData) -> Design:
    """Turn a specification and a table into arrays.

    Missing outcomes are left out under MAR (their sessions add nothing to the likelihood; the patient stays with the
    sessions that remain), rows without a lagged predecessor are left out; both are counted in `report`. Missing
    predictors are refused.

    Parameters
    ----------
    spec
        What is modelled.
    data
        The checked table.

    Returns
    -------
    Design
        `report` holds every finding; call ``design.report.raise_errors()`` before building on it, as
        :func:`psymech.build_model` does.

    Raises
    ------
    DataError
        A column is absent, not numeric, or a predictor is missing.
    DesignError
        The model asks for a level that the data do not have, or nothing is left to fit.
    """
    instance(spec, ModelSpec, "spec", MODEL)
    refuse_other_data(data)
    given, spec = spec, settle_levels(spec, data)
    _refuse_absent_levels(spec, data)
    refuse_other_values(spec, data)
    findings = [*_early_findings(spec, data), *level_notes(given, spec)]
    DesignReport(tuple(findings)).raise_errors()
    missing = missing_values(spec, data)
    source = column_source(spec, with_first_guess(data, missing))
    latent = latent_rows(spec, data, source, findings)
    pieces = (
        [response_rows(response, data, source, findings, membership=spec.membership) for response in spec.responses]
        if latent is None
        else latent.pieces
    )
    findings += [imputation_note(each, data) for each in missing]
    many = len(spec.responses) > 1

    n_terms = sum(len(p.terms) for p in pieces)
    n_obs = sum(len(p.row) for p in pieces)
    X = np.zeros((n_obs, n_terms))
    labels: list[str] = []
    starts = np.cumsum([0, *(len(p.row) for p in pieces)])
    column = 0
    for piece, start in zip(pieces, starts[:-1], strict=True):
        width = len(piece.terms)
        X[start : start + len(piece.row), column : column + width] = piece.X
        labels += [response_label(piece.response, t.label) if many else t.label for t in piece.terms]
        column += width
    row = np.concatenate([p.row for p in pieces])
    response = np.repeat(np.arange(len(pieces)), np.diff(starts))
    term_response = np.repeat(np.arange(len(pieces)), [len(p.terms) for p in pieces])
    y = np.concatenate([p.y for p in pieces])

    kind = np.zeros(len(row), dtype=np.int8) if latent is None else latent.kind_of(response, row)
    order = np.lexsort((response, row, kind))
    X, row, response, y, kind = X[order], row[order], response[order], y[order], kind[order]
    levels = level_designs(spec, data, X, tuple(labels), row, response)
    term_specs = tuple(t for p in pieces for t in p.terms)
    latent_columns = None
    if latent is not None:
        latent_columns = latent_design(
            spec,
            data,
            term_specs=term_specs,
            term_response=term_response,
            X=X,
            y=y,
            row=row,
            response=response,
            kind=kind,
            Z={lv.level: (tuple(labels.index(t) for t in lv.terms), lv.Z) for lv in levels},
            code={lv.level: lv.code for lv in levels},
        )
        n = latent_columns.n_obs
        X, row, response, y = X[:n], row[:n], response[:n], y[:n]
        levels = tuple(replace(lv, code=lv.code[:n], Z=lv.Z[:n]) for lv in levels)
    _refuse_residuals_across_levels(spec)
    sd_by_therapist = spec.residual_by == THERAPIST
    if sd_by_therapist and all(level.level != THERAPIST for level in levels):
        raise DesignError(
            "residual_by='therapist' needs therapists in the data and random effects of theirs. Give therapist= to "
            "SessionData.from_frame(), and do not leave the level out."
        )
    if not levels:
        raise DesignError(
            f"Nothing varies over units: {', '.join(r.column for r in spec.responses)} has one value a unit of the "
            "lowest level, "
            "and no level above it is in the model. Give therapist= to SessionData.from_frame(), or model a response "
            "of sessions."
        )
    previous, gap = _previous_rows(data.codes["patient"][row], response, data.session[row])
    used: dict[Level, Ints] = {level: np.unique(data.codes[level][row]) for level in data.levels}
    design = Design(
        y=y,
        X=X,
        terms=tuple(labels),
        term_specs=term_specs,
        term_response=term_response,
        levels=levels,
        response=response,
        responses=tuple(r.column for r in spec.responses),
        family=spec.family,
        categories=pieces[0].categories,
        residual=spec.residual,
        row=row,
        session=data.session[row],
        time=data.time[row],
        previous=previous,
        gap=gap,
        time_basis=source.time_basis,
        unit_means={
            lv: {c: m[used[lv]] for c, m in means.items()} for lv, means in source.unit_means.items() if latent is None
        },
        nested=data.patient_ids != "crossed",
        report=DesignReport(tuple(findings)),
        unit_ids={level: data.ids[level][units] for level, units in used.items()},
        roles=dict(data.roles),
        patient_ids=data.patient_ids,
        residual_by=residual_groups(spec, data, row),
        sd_by_therapist=sd_by_therapist,
        sd_with_effects=any(key == names.CORR_LOG_SIGMA for key, _ in spec.priors),
        latent=latent_columns,
        imputation=make_imputation(
            spec,
            missing,
            source,
            terms=tuple(labels),
            term_specs=term_specs,
            term_response=term_response,
            random={level.level: level.terms for level in levels},
            row=row,
            response=response,
        ),
        pooled=make_pooling(
            spec, terms=labels, term_specs=term_specs, term_response=term_response, X=X, y=y, response=response
        ),
        slope_predictors=make_slope_predictors(
            spec, next((level.terms for level in levels if level.level == "patient"), ())
        ),
        correlated_responses=correlated_responses(spec),
    )
    return replace(design, report=DesignReport(tuple([*findings, *_check_design(design, spec)])))


def _early_findings(spec: ModelSpec, data: SessionData) -> list[Finding]:
    """Findings that need no columns; their errors would otherwise surface as something less clear."""
    used: dict[Level, int] = {level: 1 for level in data.levels if level not in spec.without}
    early = check_levels(used, codes=data.codes, labels=data.ids)
    return [*data.notes, *check_data(data), *(f for f in early if f.severity == "error")]


def check_design(data: SessionData, spec: ModelSpec | None = None) -> DesignReport:
    """Return what the checks found in the data, and in the design of a model where one is given.

    Never raises for what it finds: errors stand in the report, and :func:`psymech.build_model` will raise them.

    Parameters
    ----------
    data
        The table.
    spec
        A model whose design is checked as well: levels, columns, collinearity, lags.

    Returns
    -------
    DesignReport
        Prints as a table of severity, column, ids, message and remedy.

    Examples
    --------
    >>> import psymech as psm
    >>> data = psm.load_example("process_study")
    >>> psm.check_design(data, psm.growth("phq9")).ok
    True
    """
    refuse_other_data(data)
    if spec is None:
        return data_report(data)
    instance(spec, ModelSpec, "spec", MODEL)
    try:
        return make_design(spec, data).report
    except PsymechError as problem:
        known = data_report(data).findings
        text = str(problem)
        if any(f.severity == "error" and f.message in text for f in known):
            return DesignReport(known)
        return DesignReport((*known, Finding("error", "model", "", (), text, "")))


def _refuse_residuals_across_levels(spec: ModelSpec) -> None:
    at = {response.level for response in spec.responses}
    if spec.residual == "unstructured" and len(at) > 1 and not spec.loadings:
        where = ", ".join(f"{r.column!r} one value a {r.level}" for r in spec.responses)
        raise DesignError(
            "Residuals correlate across responses that are measured together, but these responses are not: "
            f"{where}. Use residual='iid', or decompose='observed' in a mediation model."
        )


def _refuse_absent_levels(spec: ModelSpec, data: SessionData) -> None:
    for block in spec.random:
        if block.level not in data.levels:
            raise DesignError(
                f"The model lets {', '.join(block.terms)} vary over level {block.level!r}, but the data name no "
                f"{block.level}. "
                f"Give the column with SessionData.from_frame(..., {block.level}=...), or leave the level out of the "
                "model."
            )


def _previous_rows(patient: Ints, response: Ints, session: Floats) -> tuple[Ints, Floats]:
    previous = np.full(patient.size, -1, dtype=np.int64)
    order = np.lexsort((session, response, patient))
    a, b = order[:-1], order[1:]
    same = (patient[a] == patient[b]) & (response[a] == response[b])
    previous[b[same]] = a[same]
    gap = np.where(previous >= 0, session - session[previous], 0.0)
    return previous, gap


def _check_design(design: Design, spec: ModelSpec) -> tuple[Finding, ...]:
    codes: dict[Level, Ints] = {level.level: level.code for level in design.levels}
    labels: dict[Level, NDArray] = {level.level: level.labels for level in design.levels}
    # Rows of several responses of one session say nothing on sessions within a patient: the longest response is looked
    # at.
    longest = design.response == np.argmax(np.bincount(design.response))
    found: list[Finding] = list(
        check_levels(
            {lv.level: len(lv.terms) for lv in design.levels},
            codes={level: code[longest] for level, code in codes.items()},
            labels=labels,
        )
    )
    if spec.therapist_in is not None:  # the placeholder of untreated patients is no therapist
        codes.pop(THERAPIST, None)
    for index, (label, term) in enumerate(zip(design.terms, design.term_specs, strict=True)):
        if term.role in ("intercept", "time"):
            continue
        part = term.factors[0].part if len(term.factors) == 1 else "raw"
        rows = design.response == design.term_response[index]
        found += check_column(
            label, design.X[rows, index], {level: code[rows] for level, code in codes.items()}, part, labels=labels
        )
    by_response = [design.term_response == r for r in range(len(design.responses))]
    singular = {f.column for f in found if f.severity == "error"}
    for index, members in enumerate(by_response):
        rows = design.response == index
        columns = {
            label: design.X[rows, j]
            for j, label in enumerate(design.terms)
            if members[j] and label not in singular and design.term_specs[j].role != "intercept"
        }
        found += check_collinear(columns)
        if design.family in ("gaussian", "student") and design.latent is None and columns:
            found += check_determined(design.responses[index], design.y[rows], np.column_stack([*columns.values()]))
        found += check_outcome(design.responses[index], design.y[rows], design.family, _variables(design, index, rows))
        own: dict[Level, Ints] = {level: code[rows] for level, code in codes.items()}
        remedy = "The whole model rests on that alone."
        found += check_rare(design.responses[index], design.y[rows], own, labels=labels, remedy=remedy)
    found += _check_slopes(design, spec)
    if design.family == "ordinal":
        found += check_categories(design.responses[0], design.categories)
    return tuple(found)


def _check_slopes(design: Design, spec: ModelSpec) -> list[Finding]:
    """Findings on random slopes; with `therapist_in` therapists' slopes stand for their intercepts."""
    found: list[Finding] = []
    for level in design.levels:
        if level.members is not None or (spec.therapist_in is not None and level.level == THERAPIST):
            continue
        for label, column in zip(level.terms, level.Z.T, strict=True):
            if label not in design.terms:
                continue
            index = design.terms.index(label)
            rows = design.response == design.term_response[index]
            if design.term_specs[index].factors:
                found += check_slope(label, column[rows], level.code[rows], level.level, labels=level.labels)
    return found


def _variables(design: Design, index: int, rows: NDArray[np.bool_]) -> dict[str, Floats]:
    """Values of the variables that predict a response in the same session, their parts put together again."""
    found: dict[str, Floats] = {}
    for j, term in enumerate(design.term_specs):
        if design.term_response[j] == index and len(term.factors) == 1 and term.role not in ("intercept", "time"):
            factor = term.factors[0]
            if factor.lag == 0 and factor.basis is None:
                found[factor.column] = found.get(factor.column, 0.0) + design.X[rows, j]
    return found

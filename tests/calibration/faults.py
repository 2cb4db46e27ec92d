"""Faults that a calibration run has to catch, each put into the closed-form fit of `conjugate`."""

from dataclasses import replace

import numpy as np

from psymech.data.sessions import SessionData
from tests.calibration.conjugate import TRUTH, Change, Floats, Known, Twist, table

LAGGED = "x.within"


def _column(k: Known, label: str) -> int:
    return k.design.terms.index(label)


def _with_column(k: Known, label: str, values: Floats) -> Known:
    """Replace a column of the fixed effects, and of the random effects where it varies."""
    X = k.X.copy()
    X[:, _column(k, label)] = values
    if label == LAGGED and "time:x.within" in k.design.terms:
        X[:, _column(k, "time:x.within")] = X[:, _column(k, "time")] * values
    Z = tuple(
        np.column_stack([values if t == label else z for t, z in zip(level.terms, part.T, strict=True)])
        for level, part in zip(k.design.levels, k.Z, strict=True)
    )
    return replace(k, X=X, Z=Z)


def _with_code(k: Known, level: int, code) -> Known:
    codes = list(k.codes)
    codes[level] = np.asarray(code)
    return replace(k, codes=tuple(codes))


def data_ignored(k: Known) -> Known:
    return replace(k, weight=np.zeros(len(k.y)))


def half_of_the_rows_ignored(k: Known) -> Known:
    return replace(k, weight=(np.arange(len(k.y)) % 2).astype(float))


def last_row_of_each_patient_ignored(k: Known) -> Known:
    last = np.append(k.codes[0][1:] != k.codes[0][:-1], True)
    return replace(k, weight=np.where(last, 0.0, 1.0))


def rows_counted_twice(k: Known) -> Known:
    return replace(k, weight=np.where(np.arange(len(k.y)) % 2 == 0, 2.0, 1.0))


def therapist_index_shifted(k: Known) -> Known:
    return _with_code(k, 1, (k.codes[1] + 1) % k.design.levels[1].n_units)


def wrong_therapist_for_some(k: Known) -> Known:
    switching = k.codes[0] % 4 == 0
    return _with_code(k, 1, np.where(switching, (k.codes[1] + 3) % k.design.levels[1].n_units, k.codes[1]))


def missing_id_takes_last_therapist(k: Known) -> Known:
    return _with_code(k, 1, np.where(k.codes[0] % 5 == 0, k.design.levels[1].n_units - 1, k.codes[1]))


def patient_ids_reused(k: Known) -> Known:
    return _with_code(k, 0, k.codes[0] % 4)


def float_ids_merge_patients(k: Known) -> Known:
    return _with_code(k, 0, k.codes[0] // 2 * 2)


def variance_used_as_sd(k: Known) -> Known:
    patient, therapist = k.covariance
    return replace(k, covariance=(patient * np.sqrt(np.outer(np.diag(patient), np.diag(patient))), therapist**2))


def residual_variance_used_as_sd(k: Known) -> Known:
    return replace(k, sigma=k.sigma**2)


def residual_sd_of_the_other_arm(k: Known) -> Known:
    return replace(k, sigma=k.sigma.sum() / len(k.sigma) * np.ones_like(k.sigma))


def correlation_of_effects_dropped(k: Known) -> Known:
    patient, therapist = k.covariance
    return replace(k, covariance=(np.diag(np.diag(patient)), therapist))


def correlation_of_effects_reversed(k: Known) -> Known:
    patient, therapist = k.covariance
    return replace(k, covariance=(2 * np.diag(np.diag(patient)) - patient, therapist))


def random_slope_dropped(k: Known) -> Known:
    patient, therapist = k.covariance
    return replace(k, covariance=(patient * np.outer([1, 1e-3], [1, 1e-3]), therapist))


def sd_of_random_slope_doubled(k: Known) -> Known:
    patient, therapist = k.covariance
    return replace(k, covariance=(patient * np.outer([1, 2], [1, 2]), therapist))


def prior_sd_of_slope_a_third(k: Known) -> Known:
    sd = k.prior_sd.copy()
    sd[_column(k, "w")] /= 3
    return replace(k, prior_sd=sd)


def prior_shifted(k: Known) -> Known:
    mean = k.prior_mean.copy()
    mean[_column(k, "w")] += k.prior_sd[_column(k, "w")]
    return replace(k, prior_mean=mean)


def lag_runs_over_gaps(k: Known) -> Known:
    """Sessions after a gap, which are no rows of the model, enter with the last session before the gap."""
    data = table()
    patient = data.codes["patient"]
    earlier = np.flatnonzero(patient[1:] == patient[:-1])
    row = np.setdiff1d(earlier + 1, k.design.row)
    lagged, time = _within(data)[row - 1], data.time[row]
    mean = np.bincount(patient, data.values("x")) / np.bincount(patient)
    therapist = data.codes["therapist"]
    upper = (np.bincount(therapist, data.values("x")) / np.bincount(therapist))[therapist[row]]
    between = mean[patient[row]] - upper
    X = np.column_stack([np.ones(row.size), time, lagged, between, upper, data.values("w")[row], time * lagged])
    first = k.X[:, _column(k, "time")] - data.time[k.design.row]
    X[:, 1] += first[0]
    X[:, -1] = X[:, 1] * lagged
    return replace(
        k,
        y=np.append(k.y, data.values("y")[row]),
        X=np.vstack([k.X, X]),
        Z=(np.vstack([k.Z[0], X[:, [0, 2]]]), np.append(k.Z[1], np.ones((row.size, 1)), axis=0)),
        codes=(np.append(k.codes[0], patient[row]), np.append(k.codes[1], therapist[row])),
        weight=np.ones(len(k.y) + row.size),
        sigma=np.append(k.sigma, np.where(data.values("arm")[row] == 1, TRUTH["sigma[1]"], TRUTH["sigma[2]"])),
    )


def lag_left_out(k: Known) -> Known:
    return _with_column(k, LAGGED, _within(table())[k.design.row])


def centred_by_therapist(k: Known) -> Known:
    data = table()
    x, code = data.values("x"), data.codes["therapist"]
    within = x - (np.bincount(code, x) / np.bincount(code))[code]
    return _with_column(k, LAGGED, within[_earlier(k)])


def between_part_dropped(k: Known) -> Known:
    return _with_column(k, "x.patient", np.zeros(len(k.y)))


def sign_of_technique_reversed(k: Known) -> Known:
    return _with_column(k, "x.patient", -k.X[:, _column(k, "x.patient")])


def session_shift_in_interaction(k: Known) -> Known:
    X = k.X.copy()
    j, time = _column(k, "time:x.within"), X[:, _column(k, "time")]
    X[:, j] = (time + 3) * X[:, _column(k, LAGGED)]
    return replace(k, X=X)


def sessions_unsorted(k: Known) -> Known:
    return _with_column(k, "time", k.X[::-1, _column(k, "time")])


def _within(data: SessionData) -> Floats:
    x, code = data.values("x"), data.codes["patient"]
    return x - (np.bincount(code, x) / np.bincount(code))[code]


def _earlier(k: Known):
    """Row of the session before, which exists for every row of the design."""
    data = table()
    place = {key: i for i, key in enumerate(zip(data.codes["patient"], data.session, strict=True))}
    return np.array([place[data.codes["patient"][row], data.session[row] - 1] for row in k.design.row])


def standardised_not_scaled_back(values: dict[str, Floats], k: Known) -> dict[str, Floats]:
    beta = values["beta"].copy()
    j = _column(k, LAGGED)
    beta[:, j] *= k.X[:, j].std()
    return values | {"beta": beta}


def intercept_left_centred(values: dict[str, Floats], k: Known) -> dict[str, Floats]:
    beta = values["beta"].copy()
    beta[:, 0] += beta[:, 1:] @ k.X[:, 1:].mean(axis=0)
    return values | {"beta": beta}


def effects_of_units_in_another_order(values: dict[str, Floats], k: Known) -> dict[str, Floats]:
    return values | {"u_patient": values["u_patient"][:, ::-1]}


def intervals_too_narrow(values: dict[str, Floats], k: Known) -> dict[str, Floats]:
    u = values["u_therapist"]
    return values | {"u_therapist": u.mean(axis=0) + 0.5 * (u - u.mean(axis=0))}


CHANGES: dict[str, Change] = {
    f.__name__: f
    for f in (
        data_ignored,
        half_of_the_rows_ignored,
        last_row_of_each_patient_ignored,
        rows_counted_twice,
        therapist_index_shifted,
        wrong_therapist_for_some,
        missing_id_takes_last_therapist,
        patient_ids_reused,
        float_ids_merge_patients,
        variance_used_as_sd,
        residual_variance_used_as_sd,
        residual_sd_of_the_other_arm,
        correlation_of_effects_dropped,
        correlation_of_effects_reversed,
        random_slope_dropped,
        sd_of_random_slope_doubled,
        prior_sd_of_slope_a_third,
        prior_shifted,
        lag_runs_over_gaps,
        lag_left_out,
        centred_by_therapist,
        between_part_dropped,
        sign_of_technique_reversed,
        session_shift_in_interaction,
        sessions_unsorted,
    )
}
TWISTS: dict[str, Twist] = {
    f.__name__: f
    for f in (
        standardised_not_scaled_back,
        intercept_left_centred,
        effects_of_units_in_another_order,
        intervals_too_narrow,
    )
}

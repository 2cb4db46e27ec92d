"""What a simulated study shows of the figures that it was tuned to."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from psymech.simulation.magnitudes import SKILLS, TECHNIQUES
from psymech.simulation.study import ProcessStudy

Floats = NDArray[np.float64]


def study_anchors(study: ProcessStudy) -> Mapping[str, float]:
    """Measure in a study what :data:`psymech.simulation.magnitudes.ANCHORS` aims at, as a meta-analyst would.

    Correlations are those of patients' values (means over the sessions for what is rated in sessions) with their
    improvement, ``psychopathology_pre - psychopathology_post``, over the patients seen afterwards. A match is minus
    the product of the two centred variables for directiveness x reactance, and the product of coping style and skills
    minus insight. ``preference_match`` and ``pre_post`` are differences in SDs of the improvement and of the first
    measurement; ``dropout_ratio`` is the share of dropouts among matched patients over that among the others;
    ``therapist_share`` is the therapists' part of the variance of the improvement, by one-way analysis of variance with
    the usual correction for unequal caseloads; ``techniques_share`` is the R-squared of the techniques' means.

    Examples
    --------
    >>> from psymech.simulation import process_study, study_anchors
    >>> sorted(study_anchors(process_study(seed=1, therapists=5)))[:3]
    ['alliance', 'coping_match', 'dropout_ratio']
    """
    data = study.data()
    code = data.codes["patient"]
    size = np.bincount(code)
    table = data.units["patient"]
    columns = {name: table[name].to_numpy(dtype=np.float64) for name in table.columns}
    for name in (*TECHNIQUES, "directiveness", "alliance", "empathy"):
        columns[name] = np.bincount(code, data.values(name)) / size
    everyone_matched, left = columns["preference_match"] == 1, columns["dropped_out"]
    dropout_ratio = float(left[everyone_matched].mean() / left[~everyone_matched].mean())
    seen = np.isfinite(columns["psychopathology_post"])
    column = {name: values[seen] for name, values in columns.items()}
    centred = {name: values - values.mean() for name, values in column.items()}
    better = column["psychopathology_pre"] - column["psychopathology_post"]

    def r(values: Floats) -> float:
        return float(np.corrcoef(values, better)[0, 1])

    skills = np.mean([centred[name] for name in SKILLS], axis=0)
    matched = column["preference_match"] == 1
    techniques = np.column_stack([np.ones(better.size), *(centred[name] for name in TECHNIQUES)])
    fitted = techniques @ np.linalg.lstsq(techniques, better, rcond=None)[0]
    return {
        "alliance": r(column["alliance"]),
        "empathy": r(column["empathy"]),
        "reactance_match": r(-centred["directiveness"] * centred["reactance"]),
        "coping_match": r(centred["coping_style"] * (skills - centred["insight"])),
        "expectations": r(column["expectations"]),
        "stage_of_change": r(column["stage_of_change"]),
        "preference_match": float((better[matched].mean() - better[~matched].mean()) / better.std(ddof=1)),
        "pre_post": float(better.mean() / column["psychopathology_pre"].std(ddof=1)),
        "dropout_ratio": dropout_ratio,
        "therapist_share": _share_of_groups(better, data.parents["patient"][seen]),
        "techniques_share": float(fitted.var() / better.var()),
    }


def _share_of_groups(values: Floats, code: NDArray[np.int64]) -> float:
    size = np.bincount(code)
    mean = np.bincount(code, values) / size
    groups, n = size.size, values.size
    between = float((size * (mean - values.mean()) ** 2).sum() / (groups - 1))
    within = float(((values - mean[code]) ** 2).sum() / (n - groups))
    typical = float((n - (size**2).sum() / n) / (groups - 1))
    variance = (between - within) / typical
    return variance / (variance + within)

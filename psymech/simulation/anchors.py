"""What a simulated study shows of the figures that it was tuned to."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psymech.simulation.magnitudes import SKILLS, TECHNIQUES
from psymech.simulation.study import ProcessStudy

Floats = NDArray[np.float64]


def study_anchors(study: ProcessStudy) -> Mapping[str, float]:
    """Measure in a study what :data:`psymech.simulation.magnitudes.ANCHORS` aims at, as a meta-analyst would.

    Correlations are those of patients' values (means over the sessions for what is rated in sessions) with their improvement,
    ``psychopathology_pre - psychopathology_post``, over the patients seen afterwards. A match is minus the product of the two
    centred variables for directiveness x reactance, and the product of coping style and skills minus insight.
    ``preference_match`` and ``pre_post`` are differences in SDs of improvement and of the first measurement;
    ``dropout_ratio`` is the share of dropouts among matched patients over that among the others; ``therapist_share`` is the
    therapists' part of the variance of the improvement by one-way analysis of variance, with the caseload correction of
    Donner (1986, doi:10.2307/1403259) for unequal groups; ``techniques_share`` is the R-squared of the techniques' means.

    Examples
    --------
    >>> from psymech.simulation import process_study, study_anchors
    >>> sorted(study_anchors(process_study(seed=1, therapists=5)))[:3]
    ['alliance', 'coping_match', 'dropout_ratio']
    """
    rated = study.sessions.groupby("patient").mean(numeric_only=True).drop(columns="session")
    home = study.sessions.groupby("patient")["therapist"].first()
    everyone = study.patients.set_index("patient")
    table = everyone.join(rated).join(home)
    seen = table[table["psychopathology_post"].notna()]
    better = (seen["psychopathology_pre"] - seen["psychopathology_post"]).to_numpy()

    def r(values: pd.Series | Floats) -> float:
        return float(np.corrcoef(np.asarray(values, dtype=float), better)[0, 1])

    def centred(name: str) -> Floats:
        return (seen[name] - seen[name].mean()).to_numpy()

    skills = np.mean([centred(name) for name in SKILLS], axis=0)
    matched = seen["preference_match"].to_numpy() == 1
    left = everyone.groupby("preference_match")["dropped_out"].mean()
    columns = np.column_stack([np.ones(len(seen)), *(centred(name) for name in TECHNIQUES)])
    fitted = columns @ np.linalg.lstsq(columns, better, rcond=None)[0]
    return {
        "alliance": r(seen["alliance"]),
        "empathy": r(seen["empathy"]),
        "reactance_match": r(-centred("directiveness") * centred("reactance")),
        "coping_match": r(centred("coping_style") * (skills - centred("insight"))),
        "expectations": r(seen["expectations"]),
        "stage_of_change": r(seen["stage_of_change"]),
        "preference_match": float((better[matched].mean() - better[~matched].mean()) / better.std(ddof=1)),
        "pre_post": float(better.mean() / seen["psychopathology_pre"].std(ddof=1)),
        "dropout_ratio": float(left.loc[1] / left.loc[0]),
        "therapist_share": _share_of_groups(better, pd.factorize(seen["therapist"])[0]),
        "techniques_share": float(fitted.var() / better.var()),
    }


def _share_of_groups(values: Floats, code: NDArray[np.int64]) -> float:
    size = np.bincount(code)
    mean = np.bincount(code, values) / size
    groups, n = size.size, values.size
    between = float((size * (mean - values.mean()) ** 2).sum() / (groups - 1))
    within = float(((values - mean[code]) ** 2).sum() / (n - groups))
    typical = (n - (size**2).sum() / n) / (groups - 1)
    variance = (between - within) / typical
    return variance / (variance + within)

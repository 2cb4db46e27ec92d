"""Whether single therapists drive the answer: Pareto k of leaving each one out."""

import warnings
from typing import Final

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import PsymechError, shown_ids
from psymech.posterior import tree as read
from psymech.posterior.loo import loo
from psymech.posterior.model_report import ModelCheck, Status

DRAWS: Final = 1000  # enough for a Pareto k; every draw costs a pass over the therapists
KHAT_MAX: Final = 0.7  # Vehtari et al. 2024: above, the posterior without the unit is another one


def therapist_influence(tree: xr.DataTree) -> list[ModelCheck]:
    """Check whether the posterior of variance parameters would be another one without a single therapist.

    Pareto k of the importance ratios that :func:`psymech.loo` uses to leave each therapist out, fixed and random
    effects integrated out: above 0.7 the posterior without the therapist is too different to be reached by
    reweighting. Models that loo() does not take (other families than Gaussian, crossed patients) are not assessed.
    """
    if "therapist" not in read.levels_of(tree):
        return []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Pareto k is greater")  # it is what is reported here
            result = loo(_thinned(tree), unit="therapist")
    except PsymechError as problem:
        return [_check(np.nan, "not assessed", f"The influence of single therapists was not judged: {problem}", "")]
    khat = np.asarray(result.pareto_k, dtype=float)
    every = read.unit_labels(tree, "therapist")
    labels = [str(every[i]) for i in read.units_with_rows(tree, "therapist")]
    large = [labels[i] for i in np.argsort(-khat) if not khat[i] <= KHAT_MAX]
    if not large:
        text = f"No single therapist drives the answer (Pareto k of leaving one out at most {khat.max():.2f})."
        return [_check(float(khat.max()), "ok", text, "")]
    text = (
        f"Variances and slopes would differ without {len(large)} of {len(labels)} therapists: {shown_ids(large)} "
        f"(Pareto k up to {khat.max():.2f})."
    )
    remedy = "Look at their data; fit again without them and report both."
    return [_check(float(khat.max()), "failed", text, remedy)]


def _thinned(tree: xr.DataTree) -> xr.DataTree:
    draws = read.posterior(tree)
    step = max(1, draws.sizes[names.CHAIN] * draws.sizes[names.DRAW] // DRAWS)
    if step == 1:
        return tree
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    new = xr.DataTree.from_dict(groups | {f"/{names.POSTERIOR}": draws.isel({names.DRAW: slice(None, None, step)})})
    new.attrs = dict(tree.attrs)
    return new


def _check(khat: float, status: Status, text: str, remedy: str) -> ModelCheck:
    return ModelCheck(
        name="influence of one (Pareto k)",
        level="therapist",
        response="",
        observed=khat,
        low=0.0 if np.isfinite(khat) else np.nan,
        high=KHAT_MAX if np.isfinite(khat) else np.nan,
        probability=np.nan,
        status=status,
        concerns=("variance",) if status == "failed" else (),
        text=text,
        remedy=remedy,
    )

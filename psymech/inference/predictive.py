"""prior_predictive(): outcomes that the model expects before it has seen any, beside those that were observed."""

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.arguments import checked_seed, whole
from psymech.design import Design
from psymech.graph.build import BuiltModel
from psymech.graph.explicit import explicit_model

PRIOR_PREDICTIVE = "prior_predictive"
PRIOR_CHECK = "prior_check"
STATISTIC = "statistic"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_OF_ROWS = (("lowest 5%", 0.05), ("median", 0.5), ("highest 5%", 0.95))


def prior_predictive(built: BuiltModel, *, draws: int = 500, seed: int | None = None) -> xr.DataTree:
    r"""Draw outcomes from the model and its priors alone, and set them beside the data.

    For each draw, parameters, random effects and a whole data set are drawn for the design at hand,

    .. math:: \theta \sim p(\theta),\quad u \sim p(u \mid \theta),\quad \tilde y \sim p(y \mid u, \theta),

    and summarised; where the observed value of a statistic lies far outside its prior range, the priors contradict
    the data (Gabry et al. 2019, doi:10.1111/rssa.12378). Nothing is fitted. Both engines state the same model, so the
    answer does not depend on the engine.

    Parameters
    ----------
    built
        From :func:`psymech.build_model`.
    draws
        Number of data sets.
    seed
        The same seed gives the same draws.

    Returns
    -------
    DataTree
        ``prior_predictive``: ``y (chain, draw, obs)``, categories of an ordinal outcome coded 0, 1, ....
        ``observed_data``: ``y (obs)``.
        ``prior_check``: ``predicted (statistic, quantile)``, ``observed (statistic)`` and ``below (statistic)``, the
        share of data sets whose statistic is at most the observed one. Statistics: mean and SD of all rows, SDs of the
        means of patients, therapists and clinics, and three quantiles of the rows.

    Raises
    ------
    SpecError
        `draws` is not a whole number above zero.

    Examples
    --------
    >>> import psymech as psm
    >>> built = psm.build_model(psm.growth("phq9"), psm.load_example("process_study"), engine="explicit")
    >>> tree = prior_predictive(built, draws=50, seed=1)
    >>> tree["prior_predictive"]["y"].dims
    ('chain', 'draw', 'obs')
    """
    whole(draws, "draws")
    # Residuals that correlate across responses are known to the collapsed graph only.
    own = built.engine == "explicit" or built.design.residual == "unstructured"
    model = built.model if own else explicit_model(built.design, built.priors)
    seeds = np.random.SeedSequence(checked_seed(seed)).generate_state(1)
    # One pass of forward draws is over before a compiler would have started: Python evaluates the graph.
    drawn = pm.draw(model["y"], draws=int(draws), random_seed=int(seeds[0]), mode="FAST_COMPILE")
    predicted = np.asarray(drawn, dtype=float).reshape(int(draws), built.design.n_obs)
    obs = {names.OBS: np.arange(built.design.n_obs)}
    samples = {names.CHAIN: [0], names.DRAW: np.arange(int(draws))}
    groups = {
        PRIOR_PREDICTIVE: xr.Dataset(
            {"y": ((*names.SAMPLE_DIMS, names.OBS), predicted[None])}, coords={**samples, **obs}
        ),
        names.OBSERVED_DATA: xr.Dataset({"y": ((names.OBS,), built.design.y)}, coords=obs),
        PRIOR_CHECK: _compare(built.design, predicted),
    }
    return xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})


def _compare(design: Design, predicted: NDArray[np.float64]) -> xr.Dataset:
    found = _statistics(design, predicted)
    observed = _statistics(design, design.y[None])
    labels = list(found)
    values = np.stack([found[name] for name in labels])
    truth = np.array([observed[name][0] for name in labels])
    return xr.Dataset(
        {
            "predicted": ((STATISTIC, "quantile"), np.quantile(values, QUANTILES, axis=1).T),
            "observed": ((STATISTIC,), truth),
            "below": ((STATISTIC,), (values <= truth[:, None]).mean(axis=1)),
        },
        coords={STATISTIC: labels, "quantile": list(QUANTILES)},
    )


def _statistics(design: Design, y: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Statistics of data sets, each (n_sets,), from their rows (n_sets, n_obs)."""
    found = {"mean": y.mean(axis=1), "sd": y.std(axis=1)}
    for level in design.levels:
        sums = np.zeros((level.n_units, len(y)))
        np.add.at(sums, level.code, y.T)
        n = np.bincount(level.code, minlength=level.n_units)
        found[f"sd of {level.level} means"] = (sums[n > 0] / n[n > 0, None]).std(axis=0)
    return found | {label: np.quantile(y, q, axis=1) for label, q in _OF_ROWS}

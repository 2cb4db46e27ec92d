"""From a built model to its tree: sampling, recovery of random effects, and the marks of an interrupted run."""

import json
import warnings
from collections.abc import Mapping

import xarray as xr

from psymech import names
from psymech.graph.build import BuiltModel
from psymech.inference.chains import Drawn, Keeper, RunOptions
from psymech.inference.interruption import interrupted
from psymech.inference.prior_table import prior_table
from psymech.inference.run import Sampler, run_sampler
from psymech.inference.stages import Stages
from psymech.inference.tree import assemble_tree, variable_dims
from psymech.inference.versions import library_versions
from psymech.names import LEVELS
from psymech.priors import prior_notes


class SamplingWarning(UserWarning):
    """The draws did not pass the checks of :func:`psymech.check_sampling`."""


def draw_tree(
    built: BuiltModel,
    sampler: Sampler,
    options: RunOptions,
    stages: Stages,
    *,
    keeper: Keeper | None = None,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.DataTree:
    """Sample and return the tree; where Ctrl-C ended the run, with the attribute ``psymech_interrupted``."""
    if built.engine == "collapsed":
        from psymech.inference.collapsed import sample_collapsed

        drawn = sample_collapsed(built, sampler, options, stages, keeper)
    else:
        drawn = run_sampler(built.model, sampler, options, stages, explicit_variables(built, options), keeper)
    return tree_of(built, sampler, options, drawn, dict(attrs or {}) | stages.seconds)


def explicit_variables(built: BuiltModel, options: RunOptions) -> list[str]:
    """Variables of the tree that the explicit graph draws."""
    left_out = {names.effect(level) for level in LEVELS if level not in options.effects}
    return [name for name in variable_dims(built.design) if name not in left_out]


def tree_of(
    built: BuiltModel,
    sampler: Sampler,
    options: RunOptions,
    drawn: Drawn,
    attrs: Mapping[str, str | int | float],
) -> xr.DataTree:
    """Return the tree of some draws."""
    tree = assemble_tree(
        drawn.values,
        drawn.stats,
        spec=built.spec,
        design=built.design,
        attrs={
            names.ATTR_ENGINE: built.engine,
            names.ATTR_ENGINE_REASON: built.reason,
            names.ATTR_SEED: options.seed,
            names.ATTR_SAMPLER: sampler,
            "tune": options.tune,
            "target_accept": options.target_accept,
            names.ATTR_LIBRARIES: json.dumps(library_versions()),
            names.ATTR_PRIORS: prior_table(built.design, built.priors),
            "effects_kept": json.dumps(options.effects),
            names.ATTR_PRIOR_NOTES: json.dumps(prior_notes(built.design)),
            **attrs,
        },
    )
    if drawn.made != (options.draws,) * options.chains:
        tree.attrs[names.ATTR_INTERRUPTED] = json.dumps(
            {"asked": options.draws, "made": drawn.made, "kept_chains": drawn.kept}
        )
    return tree


def warn_interrupted(tree: xr.DataTree, remedy: str, stacklevel: int) -> None:
    """Warn where a run was interrupted."""
    said = interrupted(tree)
    if said:
        warnings.warn(f"{said} {remedy}", SamplingWarning, stacklevel=stacklevel + 1)

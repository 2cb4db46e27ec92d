"""Many fits of one explicit model to other responses: compiled once, drawn from as often as wanted, also by threads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.graph.build import BuiltModel
from psymech.graph.explicit import explicit_model
from psymech.inference.chains import RunOptions
from psymech.inference.run import compile_model, sample_nutpie
from psymech.inference.stages import Stages
from psymech.inference.tree import assemble_tree, variable_dims

OBSERVED = "observed_y"


@dataclass(frozen=True, slots=True, eq=False)
class Refits:
    """An explicit model, compiled; `built` is what it was compiled from."""

    built: BuiltModel
    compiled: Any
    variables: tuple[str, ...]

    def sample(self, built: BuiltModel, options: RunOptions) -> xr.DataTree:
        """Draw from the posterior of the same model with another response, and columns made of it.

        Parameters
        ----------
        built
            The same specification and priors, with a design of the same rows and units.
        options
            As for :func:`psymech.sample`.

        Returns
        -------
        DataTree
            As :func:`psymech.sample` returns it, attributes of the run left out.

        Raises
        ------
        SpecError
            The design has other rows, terms or units, or priors that were not compiled in.
        """
        _refuse_another_model(self.built, built)
        design = built.design
        new = {OBSERVED: design.y, names.DESIGN_X: design.X}
        new |= {names.design_z(level.level): level.Z for level in design.levels}
        known = {variable.name for variable in self.compiled.shared_var_keys}
        compiled = self.compiled.with_data(**{name: values for name, values in new.items() if name in known})
        drawn = sample_nutpie(compiled, options, Stages(show=False))
        if any(made < options.draws for made in drawn.made):
            raise KeyboardInterrupt  # a refit is one of many: Ctrl-C ends them all
        values = {name: drawn.values[name] for name in self.variables}
        return assemble_tree(values, drawn.stats, spec=built.spec, design=design, attrs={})


def compile_refits(built: BuiltModel) -> Refits:
    """Compile the explicit graph of a model such that its responses can be exchanged.

    Examples
    --------
    >>> import psymech as psm
    >>> built = psm.build_model(psm.growth("phq9"), psm.load_example("process_study"), engine="explicit")
    >>> refits = compile_refits(built)  # doctest: +SKIP
    """
    model = exchangeable_model(built)
    wanted = [name for name in variable_dims(built.design) if name in model.named_vars]
    return Refits(built, compile_model(model, wanted), tuple(wanted))


def exchangeable_model(built: BuiltModel) -> pm.Model:
    """Return the explicit graph with the response as data (``observed_y``), where :func:`explicit_model` writes it in
    as constants.
    """
    model = explicit_model(built.design, built.priors)
    y = model["y"]
    old = model.rvs_to_values[y]
    with model:
        observed = pm.Data(OBSERVED, built.design.y.astype(old.dtype), dims=(names.OBS,))
    model.rvs_to_values[y] = observed
    del model.values_to_rvs[old]
    model.values_to_rvs[observed] = y
    return model


def _refuse_another_model(old: BuiltModel, new: BuiltModel) -> None:
    a, b = old.design, new.design
    same = (
        old.priors is new.priors
        and a.terms == b.terms
        and np.array_equal(a.row, b.row)
        and np.array_equal(a.response, b.response)
        and len(a.levels) == len(b.levels)
        and all(x.terms == y.terms and np.array_equal(x.code, y.code) for x, y in zip(a.levels, b.levels, strict=True))
    )
    if not same:
        raise SpecError(
            "A compiled model can be fitted again to other responses only: the same rows, terms, units and priors. "
            "Compile the other model with compile_refits()."
        )

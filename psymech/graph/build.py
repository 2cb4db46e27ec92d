"""build_model(): from a specification and a table to a PyMC model, checked before anything compiles."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from psymech.columns import settle_levels
from psymech.data.sessions import SessionData
from psymech.design import Design, make_design
from psymech.errors import DesignWarning, NotCollapsibleError
from psymech.priors import ChosenPriors, choose_priors
from psymech.spec.model import ModelSpec, one_of

Engine = Literal["auto", "collapsed", "explicit"]
ENGINES = ("auto", "collapsed", "explicit")

if TYPE_CHECKING:
    import pymc as pm


@dataclass(frozen=True, eq=False)
class BuiltModel:
    """A PyMC model together with what it was built from.

    Attributes
    ----------
    model : the PyMC model; extend it or sample it with ``pm.sample`` as you like. Made when first asked for: the
    collapsed engine
        samples without it, and need not wait for PyMC.
    engine : "explicit" or "collapsed"; reason : why, in words.
    """

    spec: ModelSpec
    design: Design
    priors: ChosenPriors
    engine: Literal["collapsed", "explicit"]
    reason: str

    @cached_property
    def model(self) -> "pm.Model":
        """The PyMC model."""
        if self.engine == "collapsed":
            from psymech.graph.collapsed import collapsed_model

            return collapsed_model(self.design, self.priors)
        if self.design.latent is not None:
            from psymech.graph.latent_means import latent_model

            return latent_model(self.design, self.priors)
        if self.design.imputation is not None:
            from psymech.graph.imputed import imputed_model

            return imputed_model(self.design, self.priors)
        joined = self.design.pooled is not None or self.design.slope_predictors is not None
        if joined or self.design.residual == "unstructured":
            from psymech.graph.joined import joined_model

            return joined_model(self.design, self.priors)
        from psymech.graph.explicit import explicit_model

        return explicit_model(self.design, self.priors)


def build_model(spec: ModelSpec, data: SessionData, engine: Engine = "auto") -> BuiltModel:
    """Build the PyMC model of a specification for a table.

    Every check runs first: errors of the design are raised together before anything compiles, warnings are issued as
    :class:`psymech.DesignWarning`, notes are kept in ``built.design.report``.

    Parameters
    ----------
    spec
        What is modelled, from :func:`psymech.growth` or :func:`psymech.process`.
    data
        The checked table.
    engine
        ``"explicit"`` makes every random effect a variable; ``"collapsed"`` integrates random and fixed effects out
        exactly (Gaussian responses, nested levels); ``"auto"`` takes the collapsed engine wherever it is exact.

    Returns
    -------
    BuiltModel

    Raises
    ------
    DataError, DesignError
        The table cannot carry this model.
    NotCollapsibleError
        ``engine="collapsed"`` where it is not exact; the message says why.

    Examples
    --------
    >>> import psymech as psm
    >>> data = psm.load_example("process_study")
    >>> built = psm.build_model(psm.growth("phq9"), data, engine="explicit")
    >>> [rv.name for rv in built.model.free_RVs]
    ['fixed', 'scale_patient', 'partial_patient', 'z_patient', 'scale_therapist', 'z_therapist', 'sigma']
    """
    one_of(engine, ENGINES, "engine")
    design = make_design(spec, data)
    spec = settle_levels(spec, data)
    design.report.raise_errors()
    for finding in design.report.warnings:
        warnings.warn(str(finding), DesignWarning, stacklevel=2)
    priors = choose_priors(spec, design)
    obstacle = why_not_collapsed(design, priors)
    if engine == "collapsed" and obstacle:
        raise NotCollapsibleError(
            f"The collapsed engine is not exact here: {obstacle} Use engine='explicit' or 'auto'."
        )
    if engine == "explicit" or obstacle:
        return BuiltModel(spec, design, priors, "explicit", obstacle or "asked for")
    reason = "asked for" if engine == "collapsed" else "exact here: Gaussian responses and nested levels."
    return BuiltModel(spec, design, priors, "collapsed", reason)


def why_not_collapsed(design: Design, priors: ChosenPriors) -> str:
    """Say why the collapsed engine is not exact for a design; empty where it is."""
    if design.family != "gaussian":
        return f"the family is {design.family!r}, not 'gaussian'."
    if design.latent is not None:
        return "slopes act on deviations from latent means, which are themselves parameters."
    if design.pooled is not None:
        return "coefficients are pooled over outcomes (pool=True)."
    if design.slope_predictors is not None:
        return "patients' random effects predict outcomes (process=)."
    if design.imputation is not None:
        columns = ", ".join(repr(m.column) for m in design.imputation.missing)
        return f"{design.imputation.n} missing values of {columns} are parameters."
    if any(level.members is not None for level in design.levels):
        return "patients are shared among therapists (membership=)."
    if not design.nested:
        return "patients are crossed with therapists, not nested in them."
    if design.sd_by_therapist:
        return "each therapist has a residual SD (residual_by='therapist')."
    if design.residual == "ar1" and len(design.responses) > 1:
        return "AR(1) residuals of several responses."
    return ""

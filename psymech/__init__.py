"""psymech: Bayesian multilevel models of psychotherapy: sessions in patients in therapists.

Names are loaded when first used, so that ``import psymech`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from psymech.data.decompose import decompose as decompose
    from psymech.data.design_report import DesignReport as DesignReport
    from psymech.data.findings import Finding as Finding
    from psymech.data.reshape import read_long as read_long
    from psymech.data.reshape import read_spss as read_spss
    from psymech.data.reshape import read_wide as read_wide
    from psymech.data.scoring import scale_reliability as scale_reliability
    from psymech.data.scoring import score_scale as score_scale
    from psymech.data.sessions import SessionData as SessionData
    from psymech.errors import DataError as DataError
    from psymech.errors import DesignError as DesignError
    from psymech.errors import DesignWarning as DesignWarning
    from psymech.errors import NotCollapsibleError as NotCollapsibleError
    from psymech.errors import PsymechError as PsymechError
    from psymech.errors import SpecError as SpecError
    from psymech.models.growth import growth as growth
    from psymech.models.mediation import mediation as mediation
    from psymech.models.outcomes import outcomes as outcomes
    from psymech.models.process import process as process
    from psymech.spec.model import ModelSpec as ModelSpec

_HOME = {
    "DataError": "errors",
    "DesignError": "errors",
    "DesignReport": "data.design_report",
    "DesignWarning": "errors",
    "Finding": "data.findings",
    "ModelSpec": "spec.model",
    "NotCollapsibleError": "errors",
    "PsymechError": "errors",
    "SessionData": "data.sessions",
    "SpecError": "errors",
    "decompose": "data.decompose",
    "growth": "models.growth",
    "process": "models.process",
    "mediation": "models.mediation",
    "indirect_effects": "posterior.mediation",
    "mediation_table": "posterior.mediation",
    "moderated_mediation": "posterior.mediation",
    "mediation_sensitivity": "posterior.mediation_sensitivity",
    "plot_paths": "plots.paths",
    "simulate_mediation": "simulation.mediation",
    "build_model": "graph.build",
    "BuiltModel": "graph.build",
    "sample": "inference.sample",
    "fit": "inference.sample",
    "resume": "inference.resume",
    "salvage": "inference.resume",
    "SamplingWarning": "inference.drawing",
    "describe_priors": "priors",
    "check_sampling": "inference.checks",
    "SamplingReport": "inference.checks",
    "load_example": "data.examples",
    "example_names": "data.examples",
    "Normal": "spec.priors",
    "StudentT": "spec.priors",
    "HalfNormal": "spec.priors",
    "HalfStudentT": "spec.priors",
    "Exponential": "spec.priors",
    "LKJ": "spec.priors",
    "Gamma": "spec.priors",
    "SymmetricBeta": "spec.priors",
    "TimeShape": "spec.model",
    "effects": "posterior.effects",
    "therapist_effects": "posterior.therapists",
    "summarize_therapists": "posterior.therapists",
    "consistency": "posterior.residuals",
    "rank_therapists": "posterior.ranks",
    "compare_therapists": "posterior.ranks",
    "reliability": "posterior.reliability",
    "minimum_caseload": "posterior.reliability",
    "variance_partition": "posterior.variance",
    "slope_share": "posterior.variance",
    "r2": "posterior.r2",
    "loo": "posterior.loo",
    "ingredient_shares": "posterior.shares",
    "summarize_shares": "posterior.shares",
    "published_shares": "posterior.published",
    "outcomes": "models.outcomes",
    "contrasts": "posterior.contrasts",
    "standardized_effects": "posterior.contrasts",
    "caseload": "posterior.caseload",
    "expected_trajectories": "posterior.trajectories",
    "plot_therapists": "plots.therapists",
    "plot_trajectories": "plots.trajectories",
    "plot_variance_partition": "plots.variance",
    "plot_effects": "plots.effects",
    "plot_ranks": "plots.ranks",
    "plot_ppc": "plots.ppc",
    "plot_design": "plots.design",
    "report": "reporting.html",
    "write_tables": "reporting.tables",
    "check_model": "posterior.model_checks",
    "ModelReport": "posterior.model_report",
    "ModelCheck": "posterior.model_report",
    "simulate": "simulation",
    "Simulation": "simulation",
    "Sizes": "simulation",
    "Predictor": "simulation",
    "check_design": "design",
    "save": "inference.storage",
    "load": "inference.storage",
    "PriorDescription": "priors",
    "prior_predictive": "inference.predictive",
    "predict": "posterior.predict",
    "exceedance": "posterior.exceedance",
    "rankability": "posterior.exceedance",
    "caseload_table": "posterior.exceedance",
    "reliable_change": "data.reliable_change",
    "clinical_cutoffs": "data.reliable_change",
    "ClinicalCutoffs": "data.reliable_change",
    "true_change": "posterior.change",
    "sudden_gains": "data.sudden_gains",
    "ruptures": "data.ruptures",
    "read_long": "data.reshape",
    "read_spss": "data.reshape",
    "read_wide": "data.reshape",
    "score_scale": "data.scoring",
    "scale_reliability": "data.scoring",
    "early_response": "data.early_response",
    "calibrate": "calibration.run",
    "calibration_failures": "calibration.run",
    "check_calibration": "calibration.checks",
    "CalibrationReport": "calibration.checks",
    "coverage": "calibration.coverage",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'psymech' has no attribute {name!r}")
    value = getattr(import_module(f"psymech.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)

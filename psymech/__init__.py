"""psymech: Bayesian multilevel models of psychotherapy: sessions in patients in therapists.

Names are loaded when first used, so that ``import psymech`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from psymech.calibration.checks import CalibrationReport as CalibrationReport
    from psymech.calibration.checks import check_calibration as check_calibration
    from psymech.calibration.coverage import coverage as coverage
    from psymech.calibration.run import calibrate as calibrate
    from psymech.calibration.run import calibration_failures as calibration_failures
    from psymech.data.decompose import decompose as decompose
    from psymech.data.design_report import DesignReport as DesignReport
    from psymech.data.early_response import early_response as early_response
    from psymech.data.examples import example_names as example_names
    from psymech.data.examples import load_example as load_example
    from psymech.data.findings import Finding as Finding
    from psymech.data.reliable_change import ClinicalCutoffs as ClinicalCutoffs
    from psymech.data.reliable_change import clinical_cutoffs as clinical_cutoffs
    from psymech.data.reliable_change import reliable_change as reliable_change
    from psymech.data.reshape import read_long as read_long
    from psymech.data.reshape import read_spss as read_spss
    from psymech.data.reshape import read_wide as read_wide
    from psymech.data.ruptures import ruptures as ruptures
    from psymech.data.scoring import scale_reliability as scale_reliability
    from psymech.data.scoring import score_scale as score_scale
    from psymech.data.sessions import SessionData as SessionData
    from psymech.data.sudden_gains import sudden_gains as sudden_gains
    from psymech.design import check_design as check_design
    from psymech.errors import DataError as DataError
    from psymech.errors import DesignError as DesignError
    from psymech.errors import DesignWarning as DesignWarning
    from psymech.errors import NotCollapsibleError as NotCollapsibleError
    from psymech.errors import PsymechError as PsymechError
    from psymech.errors import SpecError as SpecError
    from psymech.graph.build import BuiltModel as BuiltModel
    from psymech.graph.build import build_model as build_model
    from psymech.inference.checks import SamplingReport as SamplingReport
    from psymech.inference.checks import check_sampling as check_sampling
    from psymech.inference.drawing import SamplingWarning as SamplingWarning
    from psymech.inference.predictive import prior_predictive as prior_predictive
    from psymech.inference.resume import resume as resume
    from psymech.inference.resume import salvage as salvage
    from psymech.inference.sample import fit as fit
    from psymech.inference.sample import sample as sample
    from psymech.inference.storage import load as load
    from psymech.inference.storage import save as save
    from psymech.models.growth import growth as growth
    from psymech.models.mediation import mediation as mediation
    from psymech.models.outcomes import outcomes as outcomes
    from psymech.models.process import process as process
    from psymech.plots.design import plot_design as plot_design
    from psymech.plots.effects import plot_effects as plot_effects
    from psymech.plots.paths import plot_paths as plot_paths
    from psymech.plots.ppc import plot_ppc as plot_ppc
    from psymech.plots.ranks import plot_ranks as plot_ranks
    from psymech.plots.therapists import plot_therapists as plot_therapists
    from psymech.plots.trajectories import plot_trajectories as plot_trajectories
    from psymech.plots.variance import plot_variance_partition as plot_variance_partition
    from psymech.posterior.caseload import caseload as caseload
    from psymech.posterior.change import true_change as true_change
    from psymech.posterior.contrasts import contrasts as contrasts
    from psymech.posterior.contrasts import standardized_effects as standardized_effects
    from psymech.posterior.effects import effects as effects
    from psymech.posterior.exceedance import caseload_table as caseload_table
    from psymech.posterior.exceedance import exceedance as exceedance
    from psymech.posterior.exceedance import rankability as rankability
    from psymech.posterior.loo import loo as loo
    from psymech.posterior.mediation import indirect_effects as indirect_effects
    from psymech.posterior.mediation import moderated_mediation as moderated_mediation
    from psymech.posterior.mediation_sensitivity import mediation_sensitivity as mediation_sensitivity
    from psymech.posterior.mediation_table import mediation_table as mediation_table
    from psymech.posterior.model_checks import check_model as check_model
    from psymech.posterior.model_report import ModelCheck as ModelCheck
    from psymech.posterior.model_report import ModelReport as ModelReport
    from psymech.posterior.predict import predict as predict
    from psymech.posterior.published import published_shares as published_shares
    from psymech.posterior.r2 import r2 as r2
    from psymech.posterior.ranks import compare_therapists as compare_therapists
    from psymech.posterior.ranks import rank_therapists as rank_therapists
    from psymech.posterior.reliability import minimum_caseload as minimum_caseload
    from psymech.posterior.reliability import reliability as reliability
    from psymech.posterior.residuals import consistency as consistency
    from psymech.posterior.shares import ingredient_shares as ingredient_shares
    from psymech.posterior.shares import summarize_shares as summarize_shares
    from psymech.posterior.therapists import summarize_therapists as summarize_therapists
    from psymech.posterior.therapists import therapist_effects as therapist_effects
    from psymech.posterior.trajectories import expected_trajectories as expected_trajectories
    from psymech.posterior.variance import slope_share as slope_share
    from psymech.posterior.variance import variance_partition as variance_partition
    from psymech.priors import PriorDescription as PriorDescription
    from psymech.priors import describe_priors as describe_priors
    from psymech.reporting.html import report as report
    from psymech.reporting.tables import write_tables as write_tables
    from psymech.simulation import Predictor as Predictor
    from psymech.simulation import Simulation as Simulation
    from psymech.simulation import Sizes as Sizes
    from psymech.simulation import simulate as simulate
    from psymech.simulation.mediation import simulate_mediation as simulate_mediation
    from psymech.spec.model import ModelSpec as ModelSpec
    from psymech.spec.model import TimeShape as TimeShape
    from psymech.spec.priors import LKJ as LKJ
    from psymech.spec.priors import Exponential as Exponential
    from psymech.spec.priors import Gamma as Gamma
    from psymech.spec.priors import HalfNormal as HalfNormal
    from psymech.spec.priors import HalfStudentT as HalfStudentT
    from psymech.spec.priors import Normal as Normal
    from psymech.spec.priors import StudentT as StudentT
    from psymech.spec.priors import SymmetricBeta as SymmetricBeta

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
    "mediation_table": "posterior.mediation_table",
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

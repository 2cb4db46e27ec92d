"""Simulated tables with known truth."""

from psymech.simulation.anchors import study_anchors
from psymech.simulation.predictors import Predictor
from psymech.simulation.simulate import Simulation, simulate
from psymech.simulation.sizes import Sizes
from psymech.simulation.study import ProcessStudy, process_study

__all__ = ["Predictor", "ProcessStudy", "Simulation", "Sizes", "process_study", "simulate", "study_anchors"]

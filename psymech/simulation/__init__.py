"""Simulated tables with known truth."""

from psymech.simulation.anchors import study_anchors
from psymech.simulation.study import ProcessStudy, process_study

__all__ = ["ProcessStudy", "process_study", "study_anchors"]

"""Simulation-based calibration: parameters from the prior, data from the parameters, and the rank of the truth among
the draws of each fit.
"""

"""Estimates from a fitted tree: DataTree in, xarray with chain and draw (or a table) out. No model object, no PyMC."""

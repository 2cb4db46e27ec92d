"""Specifications: frozen values that say what is modelled; no data, no PyMC."""

"""PyMC models derived from a specification and a design. PyMC lives here and in inference/ only."""

"""The tests; a package, so that a `tests` folder left in site-packages by another project is not taken for it."""

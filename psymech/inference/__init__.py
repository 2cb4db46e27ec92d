"""Sampling, conversion to the tree, checks and storage."""

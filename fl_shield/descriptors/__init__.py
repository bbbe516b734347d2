"""Dimension-free statistics of what an update does to the probes."""

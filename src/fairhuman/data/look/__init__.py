"""Inspect a data set of any format: check it, show it, compute statistics, benchmark detectors on it."""

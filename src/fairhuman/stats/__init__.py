"""Estimates with intervals, and paired tests."""

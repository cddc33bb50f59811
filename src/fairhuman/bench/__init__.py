"""Measure training speed on this machine, and compute memory needs."""

"""Fronts of comparisons: points chosen on tuning data, tested with fresh seeds on other data."""

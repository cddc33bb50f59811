"""Comparison of methods: strategies and settings over seeds, inference cost, and grids of pictures."""

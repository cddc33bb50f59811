"""The studio: data sets, runs and their results on one local page."""

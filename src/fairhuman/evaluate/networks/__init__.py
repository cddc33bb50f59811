"""Networks of the metrics, their preprocessing and their weights."""

"""Training samples: the order of records, their views, and batches."""

"""What a training step reads: records in order, views of them, batches."""

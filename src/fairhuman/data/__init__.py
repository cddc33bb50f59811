"""From files to batches: sources, checks, the data set, the order of samples."""

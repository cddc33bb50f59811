"""Export any source as WebDataset shards, an imagefolder or Parquet tables."""

"""Pictures as they are stored and decoded: bytes, limits, filters, copies for fast reading, notes on bad records."""

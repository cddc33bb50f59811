"""Stored pictures and how to decode them: bytes, limits, filters, Arrow copies for fast reading, notes on records."""

"""Grids of pictures by several methods for the same prompts, with close-ups of faces and hands."""

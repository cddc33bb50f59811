"""Refinement of poor faces and hands in finished pictures: detect, redraw, blend in, and accept only improvements."""

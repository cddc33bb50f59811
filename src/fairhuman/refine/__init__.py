"""Repair of poor faces and hands in finished pictures: find, redraw, blend back, and never make one worse."""

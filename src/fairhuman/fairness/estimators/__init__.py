"""Estimators: compute a step's direction from its losses, exactly or at the cost of ordinary training."""

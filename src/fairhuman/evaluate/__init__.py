"""Measuring pictures: features once, cached; metrics are pure functions of them, with intervals and paired tests."""

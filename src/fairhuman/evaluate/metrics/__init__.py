"""Metrics over features and detections."""

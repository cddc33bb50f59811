"""Metrics: functions over features and detections that are computed once."""

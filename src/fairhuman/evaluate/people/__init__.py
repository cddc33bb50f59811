"""Faces and hands in pictures: detections, shape plausibility, strict and official confidences."""

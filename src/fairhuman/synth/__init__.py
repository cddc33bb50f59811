"""Synthetic people with exact masks, boxes, visibility, depth and key points."""

"""Conditions for ControlNet and T2I-Adapter: pose and depth, their storage formats and their estimators.

LiteRT and `transformers` are imported when an estimator is opened.
"""

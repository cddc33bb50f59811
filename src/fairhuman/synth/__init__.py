"""Synthetic people with exact boxes."""

from fairhuman.synth.figures import Figure, draw_figure, write_figures

__all__ = ["Figure", "draw_figure", "write_figures"]

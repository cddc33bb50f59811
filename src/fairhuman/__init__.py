"""Fair multi-objective fine-tuning of SDXL: people with right faces and hands."""

__version__ = "0.1.0"

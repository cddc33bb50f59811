"""Pictures from a trained model: samples for prompts, and the previews of a run."""

from fairhuman.generate.sample import Lora, Picture, SampleSettings, load_lora, sample, save_png

__all__ = ["Lora", "Picture", "SampleSettings", "load_lora", "sample", "save_png"]

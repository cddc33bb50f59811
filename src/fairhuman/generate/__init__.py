"""Pictures from a trained model: samples for prompts, and the previews of a run."""

from fairhuman.generate.lora import Lora, load_lora
from fairhuman.generate.sample import SampledPicture, sample, save_png
from fairhuman.generate.settings import SampleSettings

__all__ = ["Lora", "SampleSettings", "SampledPicture", "load_lora", "sample", "save_png"]

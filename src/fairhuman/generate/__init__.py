"""Sample images from a model: for prompts, and as previews of a training run."""

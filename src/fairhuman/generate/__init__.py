"""Pictures from a trained model: samples for prompts, and the previews of a run."""

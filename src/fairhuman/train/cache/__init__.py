"""On-disk caches of the frozen networks' outputs: latents and text embeddings."""

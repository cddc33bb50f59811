"""Methods side by side: the same prompts, close-ups of the same faces and hands."""

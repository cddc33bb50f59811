"""Networks that look at pictures and prompts, and their weights."""

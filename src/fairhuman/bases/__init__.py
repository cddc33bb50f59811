"""Base models: one file a base, behind one protocol."""

"""What frozen networks made, kept on disk."""

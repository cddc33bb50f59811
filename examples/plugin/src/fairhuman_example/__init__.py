"""Parts that this package adds to fairhuman, one a module."""

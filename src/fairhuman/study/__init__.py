"""The user study: which of several methods' pictures people prefer, asked blind."""

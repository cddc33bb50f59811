"""Blind user study: which of several methods' pictures people prefer."""

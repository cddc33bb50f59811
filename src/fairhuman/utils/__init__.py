"""Helpers without domain knowledge: files, locks, signals, random numbers, memory."""

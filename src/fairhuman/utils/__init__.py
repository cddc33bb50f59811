"""Files, locks, signals, random numbers, memory: what any program needs."""

"""How fast training is on this machine, and what it needs."""

"""Training: `settings` say what, `step` is the mathematics of one step, `loop` the run around it."""

"""Training. `recipe` holds the settings, `step` the mathematics of one step, `loop` the run around it."""

"""The trainable models behind one protocol (`model.py`), and their components."""

"""The models that can be trained, behind one protocol (`model.py`), and what they are built from."""

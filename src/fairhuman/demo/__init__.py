"""The demo: render synthetic people, fine-tune on them, sample, evaluate and write a report."""

"""The demo: the main job on synthetic people, from rendering to report."""

"""Checkpoint files: read safely, of several origins, reported, with the config of their model."""

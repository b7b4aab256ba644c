"""The main run as a list of deterministic stages, each one file, each readable top to bottom."""

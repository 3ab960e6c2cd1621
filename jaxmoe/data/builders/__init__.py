"""TFDS builders that store examples as records."""

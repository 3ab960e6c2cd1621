"""Data that is rendered: motions, shapes, scenes, domains."""

"""Attacks on one model scored on others, and universal perturbations."""

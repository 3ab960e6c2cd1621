"""Checks that tell if figures can be trusted: of masked gradients, and of the model itself."""

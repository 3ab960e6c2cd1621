"""Whether figures can be trusted: masked gradients, and the model itself."""

"""Certificates by smoothing and by Lipschitz bounds."""

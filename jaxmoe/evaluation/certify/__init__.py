"""What can be proved: certificates by smoothing and by Lipschitz bounds."""

"""What is measured of predictions, routes and smoothness."""

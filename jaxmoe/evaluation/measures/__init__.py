"""Measures of predictions, routes and smoothness."""

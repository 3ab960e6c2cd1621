"""A model under several attacks: suites, AutoAttack, grids of numbers, and their rows."""

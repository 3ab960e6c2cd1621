"""Which files, labels and splits a data set has."""

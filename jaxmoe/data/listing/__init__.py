"""The files, labels and splits of a data set."""

"""Studies: many runs of the pipeline as a list in a file, what came out of them, and its tables."""

"""A file's bytes to a verdict and grey pixels."""

"""The two ways to train, from options to a bundle: on one split, and by cross-validation."""

"""Probabilities to rows, part files and what a run folder says of itself."""

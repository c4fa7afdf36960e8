"""Pixels to probabilities, in this process."""

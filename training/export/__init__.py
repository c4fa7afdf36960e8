"""Keras to a proven model bundle."""

"""Keras models to gated bundles."""

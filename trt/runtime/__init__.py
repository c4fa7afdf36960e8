"""Engines at work: device, buffers, the classifier."""

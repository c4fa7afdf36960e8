"""Labelled images and how they are divided."""

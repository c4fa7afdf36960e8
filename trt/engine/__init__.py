"""Engines as files: built, kept, described."""

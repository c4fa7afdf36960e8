"""The files that a training keeps in its work folder."""

"""What training and the audit of a data set must agree on, so that they see the same images and the same parts."""

from collections.abc import Mapping

CONTENT_SIZE = 160  # pixels; whatever a recipe's size is, slices are compared and dealt by their pixels at this one

PART_FOLDERS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Name of a folder in lower case -> the part of the data set that it holds."""

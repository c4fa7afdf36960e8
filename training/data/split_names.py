"""The names of the ways to divide a data set for training and test; light, so that `--help` can show them."""

from collections.abc import Mapping

HOLDOUT, REFERENCE, OFFICIAL, FOLDER = "holdout", "reference", "official", "folder"
GROUPED, SOURCES = "grouped", "sources"

SPLITS: Mapping[str, str] = {
    HOLDOUT: "70/15/15; images that belong together stay in one part",
    GROUPED: "k folds of images that belong together; every image is tested once",
    SOURCES: "one fold per source (folder Testing, most frequent size, other sizes)",
    REFERENCE: "random 85/15, as in the reference notebooks",
    OFFICIAL: "the folders Training and Testing",
    FOLDER: "the folders train, validation (optional) and test",
}
"""Name -> what it does, for people."""
IN_FOLDS = (GROUPED, SOURCES)  # one fit per fold; see workflow/cross_validation.py

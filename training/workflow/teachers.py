"""Teachers for a student: one bundle, or a bundle for each fold that has not learned from the images of that fold.

A teacher that was trained on images that the student is tested on passes on what it knows about them, so the figures
would be too good. `--fold-bundles` of the teacher's own training writes one for each fold; with a single bundle, every
figure says in its protocol how many of the tested images it was trained on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mribatch.core.bundle import SPEC_FILE, Bundle, load_bundle
from mribatch.core.errors import OptionError
from mribatch.training.data.images import DataSet, load
from mribatch.training.data.split import PARTS
from mribatch.training.fit.teaching import Teacher
from mribatch.training.workflow.options import TrainOptions

ALL = "all"  # the teacher of the fit on all images, beside those of the folds


@dataclass(frozen=True)
class Teachers:
    """The bundles of --teacher, and the images at their size."""

    options: TrainOptions
    bundles: dict[str, Bundle]  # fit -> teacher; "" -> the teacher of every fit

    @property
    def name(self) -> str:
        """Of the teacher, for people."""
        return next(iter(self.bundles.values())).spec.name if "" in self.bundles else "models of the same folds"

    @property
    def sha256(self) -> str:
        """hex, of all of them, for fingerprints."""
        named = sorted((name, bundle.sha256) for name, bundle in self.bundles.items())
        return sha256(repr(named).encode()).hexdigest()

    @cached_property
    def data(self) -> DataSet:
        """All images at the teachers' size, in the order of the student's."""
        size = next(iter(self.bundles.values())).spec.height
        return load(self.options.data, self.options.classes, size, self.options.quiet)

    def find(self, fit: str) -> Bundle:
        """Return the teacher of a fit.

        Raises:
            OptionError: There is none.
        """
        found = self.bundles.get(fit, self.bundles.get(""))
        if found is None:
            problem = f"--teacher {self._named} has no teacher for '{fit}'; it has: {', '.join(self.bundles)}"
            raise OptionError(problem, "give the --fold-bundles folder of a training with the same folds")
        return found

    @contextmanager
    def open(self, fit: str, parts: NDArray[np.int64]) -> Iterator[Teacher]:
        """Open the teacher of one fit for its training part."""
        bundle = self.find(fit)
        teaching = self.options.teaching
        assert teaching is not None, "there are no teachers without it"
        trained = self.data.pixels[np.equal(parts, PARTS.index("train"))]
        with teaching.open(bundle) as classifier:
            yield Teacher(name=bundle.spec.name, answer=classifier, pixels=trained)

    def count_seen(self, fit: str, tested: NDArray[np.bool_]) -> int | None:
        """Return how many tested images the teacher of a fit was trained on; None if it does not say."""
        known = self.find(fit).training_images
        if known is None:
            return None
        return sum(match is not None for match in known.find(self.data.pixels[tested]))

    def describe(self, seen: list[int | None], tested: int) -> str:
        """Return the end of a protocol: what the teachers knew of the tested images."""
        counts = [count for count in seen if count is not None]
        if len(counts) < len(seen):
            return f"; taught by {self.name}, whose training images are not known"
        share = f"{sum(counts):,} of the {tested:,}" if sum(counts) else "none of the"
        return f"; taught by {self.name}, trained on {share} tested images"

    @property
    def _named(self) -> str:
        return "" if self.options.teaching is None else self.options.teaching.model


def find_teachers(options: TrainOptions) -> Teachers | None:
    """Return the teachers of --teacher; None for a recipe that learns from none.

    Raises:
        OptionError: The recipe needs one and there is none, the reverse, or one has other classes.
    """
    share, teaching = options.recipe.teacher_share, options.teaching
    if options.fitted is not None:
        return None  # whoever fitted the networks has taught them
    if teaching is None:
        if share:
            problem = f"'{options.recipe.name}' learns from a teacher, and there is none"
            raise OptionError(problem, "give --teacher MODEL, or --set teacher_share=0 to learn from labels alone")
        return None
    if not share:
        problem = f"'{options.recipe.name}' learns from labels alone"
        raise OptionError(problem, "omit --teacher, or give --set teacher_share=0.7")
    bundles = _load_bundles(teaching.model)
    sizes = {(bundle.spec.height, bundle.spec.width) for bundle in bundles.values()}
    for bundle in bundles.values():
        if bundle.spec.classes != options.classes.names or len(sizes) > 1 or bundle.spec.height != bundle.spec.width:
            problem = f"the teacher '{bundle.spec.name}' has other classes than the student, or sizes that do not fit"
            raise OptionError(problem, f"give a teacher for {', '.join(options.classes.names)}, of one square size")
    return Teachers(options, bundles)


def describe_unknown_teacher(options: TrainOptions) -> str:
    """Return the end of a protocol for networks that were fitted, and taught, elsewhere; empty for all others."""
    taught = options.fitted is not None and options.recipe.teacher_share > 0
    return "; taught elsewhere, by a teacher whose training images cannot be checked here" if taught else ""


def _load_bundles(model: str) -> dict[str, Bundle]:
    folder = Path(model)
    inside = sorted(path.parent for path in folder.glob(f"*/{SPEC_FILE}")) if folder.is_dir() else []
    if inside and not (folder / SPEC_FILE).is_file():
        return {path.name: load_bundle(str(path)) for path in inside}
    return {"": load_bundle(model)}

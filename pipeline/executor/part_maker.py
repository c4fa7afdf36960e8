"""The one object that turns parts of the listing into part files, in whatever process it lives."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.changes import flag_changed
from mribatch.pipeline.listing.table import Listing
from mribatch.pipeline.output.layout import PartLayout
from mribatch.pipeline.output.parts import PartFacts, PartWriter
from mribatch.pipeline.output.rows import predictions
from mribatch.pipeline.records import FileClassifier, ImageFile, Prediction, Sink
from mribatch.pipeline.stopwatch import DECODING, WRITING, Stopwatch


def make_rows(
    groups: Iterable[Sequence[ImageFile]],
    classify_files: FileClassifier,
    classes: Sequence[str],
    sink: Sink,
    watch: Stopwatch,
) -> Iterator[list[Prediction]]:
    """Take every image through the stages: decode, classify, make rows, write them.

    Args:
        groups: Files in listing order, at most one batch each; no group crosses a part.
        classify_files: Entered.
        classes: In the order of the model's columns.
        sink: Where the rows go.
        watch: Receives the seconds of each stage.

    Yields:
        The rows of each batch, once they are written.
    """
    for batch in classify_files.batches(groups, watch):
        with watch.measure(WRITING):
            rows = predictions(flag_changed(batch), classes)
            sink.write(rows)
        watch.seconds[DECODING] += sum(file.seconds for file in batch.files)
        yield rows


class PartMaker:
    """Makes part files of one run.

    Args:
        run: The run folder, whose listing is there.
        listing: Of the run.
        layout: Which rows of the listing each part holds.
        facts: For every part's metadata.
        published: Called with the number of a part and of its rows once its file is there.
    """

    def __init__(
        self,
        run: Path,
        listing: Listing,
        layout: PartLayout,
        facts: PartFacts,
        published: Callable[[int, int], None] | None = None,
    ) -> None:
        self._run = run
        self._listing = listing
        self._layout = layout
        self._facts = facts
        self._published = published
        self._writer: PartWriter | None = None

    def make(
        self,
        parts: Iterable[int],
        classifier: FileClassifier,
        watch: Stopwatch,
        heads: Mapping[int, pa.Table] | None = None,
    ) -> Iterator[list[Prediction]]:
        """Make parts, one after the other; each appears when its last row is written.

        Args:
            parts: Their numbers, ascending.
            classifier: Entered.
            watch: Receives the seconds of each stage.
            heads: Part -> its first rows, where an earlier process has kept them.

        Yields:
            The new rows of each batch.
        """
        heads = heads or {}
        self._writer = PartWriter(self._run, self._layout, self._facts, heads, self._published)
        spans = [self._layout.rows(part)[heads[part].num_rows if part in heads else 0 :] for part in parts]
        groups = self._split_into_batches(spans, classifier.batch_size)
        yield from make_rows(groups, classifier, self._facts.classes, self._writer, watch)

    def keep(self) -> int:
        """Keep the rows of an unfinished part; return how many are lost because the disk refuses."""
        if self._writer is None:
            return 0
        try:
            self._writer.keep()
        except MribatchError:
            return self._writer.unpublished
        return 0

    @property
    def unpublished(self) -> int:
        """Rows of the part that is under way."""
        return 0 if self._writer is None else self._writer.unpublished

    def _split_into_batches(self, spans: Iterable[range], size: int) -> Iterator[list[ImageFile]]:
        for files in self._listing.slices(spans):
            for start in range(0, len(files), size):
                yield files[start : start + size]

"""Everything that a run needs, checked before anything is written."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name
from mribatch.pipeline.file_classifier import make_file_classifier
from mribatch.pipeline.listing.discover import Input, has_candidate, resolve_inputs
from mribatch.pipeline.options import AUTO, ClassifyOptions
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.folder import LISTING_KEY, WORKER_LOG, Fingerprint, RunFolder
from mribatch.pipeline.output.layout import PART_ROWS
from mribatch.pipeline.output.run_file import RunFile
from mribatch.pipeline.output.xlsx_table import require_openpyxl
from mribatch.pipeline.records import FileClassifier


@dataclass(frozen=True)
class Plan:
    """A run that may begin: inputs, bundle, backend and decoder are there, the output folder is ours."""

    inputs: tuple[Input, ...]
    folder: RunFolder
    options: ClassifyOptions  # with `auto` resolved as an earlier run of the same folder did
    bundle: Bundle
    classifier: FileClassifier
    threads: int

    def fingerprint(self, listing_sha256: str) -> Fingerprint:
        """Return what must stay the same for the run to be resumed. The classifier must be entered."""
        inputs = [[item.kind, decode_name(item.root)[0], decode_name(item.name)[0]] for item in self.inputs]
        runs_with = self.classifier.runs_with
        return Fingerprint(
            {
                "inputs": json.dumps(inputs),
                "model": f"{self.bundle.spec.name} {self.bundle.sha256}",
                "backend": runs_with.backend.name,
                "backend_version": runs_with.backend_version,
                "decoder": runs_with.decoder.name,
                "decoder_version": runs_with.decoder_version,
                "precision": runs_with.precision,
                "batch_size": self.classifier.batch_size,
                "max_pixels": self.options.max_pixels,
                "part_rows": PART_ROWS,
                "schema_version": parquet.SCHEMA_VERSION,
                LISTING_KEY: listing_sha256,
            }
        )


def make_plan(
    inputs: Sequence[str | Path], out: str | Path, options: ClassifyOptions, note: Callable[[str], None]
) -> Plan:
    """Check all that can be checked without writing.

    Raises:
        MribatchError: An input, the bundle, an option or the output folder does not fit; nothing was written.
    """
    if options.xlsx:
        require_openpyxl()
    folder = RunFolder(Path(out))
    earlier = folder.check_free()
    if not options.overwrite and earlier:
        options = _with_earlier_choices(options, earlier)
    bundle = load_bundle(options.model)
    threads = options.threads or usable_cores()
    resolved = resolve_inputs(inputs, options.from_file)
    if not has_candidate(resolved, folder.path):
        raise no_image_error()
    classifier = make_file_classifier(bundle, options, threads=threads, log=folder.path / WORKER_LOG, note=note)
    return Plan(resolved, folder, options, bundle, classifier, threads)


def no_image_error() -> MribatchError:
    """Return the error for inputs that hold no candidate at all."""
    return MribatchError(
        "there is no image in the inputs (a file that ends in .jpg, .png, .tif, .bmp, .webp or .jp2)",
        "check the folder, or name the files outright to read them whatever they are called",
    )


def _with_earlier_choices(options: ClassifyOptions, earlier: RunFile) -> ClassifyOptions:
    """Resolve `auto` as it was when the run began, even where another choice is available today."""
    return dataclasses.replace(
        options,
        backend=earlier.backend if options.backend == AUTO else options.backend,
        decoder=earlier.decoder if options.decoder == AUTO else options.decoder,
        batch_size=earlier.batch_size if options.batch_size is None else options.batch_size,
    )

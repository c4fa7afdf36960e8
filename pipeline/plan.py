"""Everything that a run needs, checked before anything is written."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.pipeline.file_classifier import make_file_classifier
from mribatch.pipeline.listing.discover import Input, escape, has_candidate, resolve_inputs
from mribatch.pipeline.options import AUTO, ClassifyOptions
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.folder import WORKER_LOG, Fingerprint, RunFolder
from mribatch.pipeline.records import FileClassifier


@dataclass(frozen=True)
class Plan:
    """A run that may begin: inputs exist, the bundle is whole, backend and decoder are there, the output is ours."""

    inputs: tuple[Input, ...]
    folder: RunFolder
    options: ClassifyOptions  # with `auto` resolved as an earlier run of the same folder did
    bundle: Bundle
    classifier: FileClassifier
    threads: int

    def fingerprint(self, listing_sha256: str) -> Fingerprint:
        """What must stay the same for the run to go on. The classifier is entered."""
        inputs = [[item.kind, escape(item.root)[0], escape(item.name)[0]] for item in self.inputs]
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
                "part_rows": parquet.PART_ROWS,
                "schema_version": parquet.SCHEMA_VERSION,
                "listing": listing_sha256,
            }
        )


def make_plan(
    inputs: Sequence[str | Path], out: str | Path, options: ClassifyOptions, note: Callable[[str], None]
) -> Plan:
    """Check all that can be checked without writing.

    Raises:
        MribatchError: An input, the bundle, an option or the output folder does not fit; nothing was written.
    """
    folder = RunFolder(Path(out))
    earlier = folder.check_free()
    if not options.overwrite and earlier:
        options = _as_resolved(options, earlier)
    bundle = load_bundle(options.model)
    threads = options.threads or usable_cores()
    resolved = resolve_inputs(inputs, options.from_file)
    if not has_candidate(resolved, folder.path):
        raise no_image_error()
    classifier = make_file_classifier(bundle, options, threads=threads, log=folder.path / WORKER_LOG, note=note)
    return Plan(resolved, folder, options, bundle, classifier, threads)


def no_image_error() -> MribatchError:
    """Said where the inputs hold no candidate at all."""
    return MribatchError(
        "there is no image in the inputs (a file that ends in .jpg, .png, .tif, .bmp, .webp or .jp2)",
        "check the folder, or name the files outright to read them whatever they are called",
    )


def _as_resolved(options: ClassifyOptions, earlier: Mapping[str, Any]) -> ClassifyOptions:
    """`auto` means what it meant when the run began, also where another choice could be had today."""
    stored = {key: earlier.get(key) for key in ("backend", "decoder", "batch_size")}
    changes: dict[str, Any] = {}
    for key in ("backend", "decoder"):
        if getattr(options, key) == AUTO and isinstance(stored[key], str):
            changes[key] = stored[key]
    if options.batch_size is None and isinstance(stored["batch_size"], int):
        changes["batch_size"] = stored["batch_size"]
    return dataclasses.replace(options, **changes)

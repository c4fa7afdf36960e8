"""Everything that a run needs, checked before anything is written."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.local_paths import utf8_path
from mribatch.core.model_spec import ModelSpec
from mribatch.pipeline.choices import TENSORRT
from mribatch.pipeline.file_classifier import make_work_order, open_file_classifier
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.listing.discover import Input, come_from_afar, count_by_name, has_candidate, resolve_inputs
from mribatch.pipeline.listing.headers import HeaderReader
from mribatch.pipeline.listing.labels import add_aliases
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.listing.table import ListingFacts
from mribatch.pipeline.no_image import no_image_error
from mribatch.pipeline.options import AUTO, PRECISIONS, ClassifyOptions
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.folder import KEY_FILE, LISTING_KEY, WORKER_LOG, Fingerprint, RunFolder
from mribatch.pipeline.output.run_file import PART_ROWS_KEY, JsonScalar, RunFile
from mribatch.pipeline.output.xlsx_table import require_openpyxl
from mribatch.pipeline.precision import FEWEST_FILES
from mribatch.pipeline.records import FileClassifier
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.pipeline.studies.pseudonyms import Pseudonyms, random_pseudonyms
from mribatch.pipeline.tuning import apply_tuning, find_tuning, take_workers
from mribatch.pipeline.workers import Workers, choose_workers
from mribatch.trt.tuning import Tuning

STUDY_LIBRARIES = {"dicom": "imagecodecs", "nifti": "nibabel"}


@dataclass(frozen=True)
class Plan:
    """A run that may begin: inputs, bundle, backend and decoder are there, the output folder is ours."""

    inputs: tuple[Input, ...]
    folder: RunFolder
    options: ClassifyOptions  # with `auto` resolved as an earlier run of the same folder did
    bundle: Bundle
    order: WorkOrder
    workers: Workers
    classifier: FileClassifier
    tuning: Tuning | None = None  # what was measured for this GPU, and is in the order

    @property
    def threads(self) -> int:
        """Cores to use."""
        return self.order.threads

    @property
    def patterns(self) -> PathPatterns:
        """What the user leaves out of the listing."""
        return PathPatterns(self.options.exclude)

    @property
    def label_spec(self) -> ModelSpec:
        """The model's spec with the names that the user gives its classes; for labels only."""
        return add_aliases(self.bundle.spec, self.options.alias)

    @property
    def key_file(self) -> Path:
        """Where the key of the run's pseudonyms is kept."""
        return Path(self.options.pseudonym_key) if self.options.pseudonym_key else self.folder.path / KEY_FILE

    def header_reader(self, pseudonyms: Pseudonyms) -> HeaderReader:
        """Return what looks into files that may be DICOM or NIfTI."""
        return make_header_reader(self.options, pseudonyms, self.order.readers)

    def fingerprint(self, listing: ListingFacts, pseudonyms: Pseudonyms, part_rows: int) -> Fingerprint:
        """Return what must stay the same for the run to be resumed. The classifier must have been entered."""
        inputs = json.dumps([item.identity for item in self.inputs])
        if self.options.anonymize_paths:
            inputs = pseudonyms.of_path(inputs.encode())
        runs_with = self.classifier.runs_with
        fields: dict[str, JsonScalar] = {
            "inputs": inputs,
            "model": f"{self.bundle.spec.name} {self.bundle.sha256}",
            "backend": runs_with.backend.name,
            "backend_version": runs_with.backend_version,
            "decoder": runs_with.decoder.name,
            "decoder_version": runs_with.decoder_version,
            "precision": runs_with.precision.name,
            "batch_size": self.classifier.batch_size,
            "max_pixels": self.options.max_pixels,
            PART_ROWS_KEY: part_rows,
            "schema_version": parquet.SCHEMA_VERSION,
        }
        fields |= self._choices() | study_versions(listing)
        if self.tuning is not None:  # what may change a bit of a pixel
            fields["hw_decoder_load"] = self.tuning.hw_decoder_load
            fields["huffman_threshold"] = self.tuning.huffman_threshold
        if self.options.pseudonym_key:
            fields["pseudonym_key"] = pseudonyms.fingerprint
        return Fingerprint(fields | {LISTING_KEY: listing.sha256})  # the listing last: it says least

    def _choices(self) -> dict[str, JsonScalar]:
        """Options that are in the fingerprint only where they are used, so that it stays the same without them."""
        before = self.bundle.spec.aliases
        aliases = {name: target for name, target in self.label_spec.aliases.items() if before.get(name) != target}
        exclude = sorted(set(self.options.exclude))
        chosen: dict[str, JsonScalar] = {"exclude": json.dumps(exclude)} if exclude else {}
        defaults = ClassifyOptions()
        for name in ("check_data", "window", "plane", "volume", "any_modality", "dicom_anywhere", "anonymize_paths"):
            value = getattr(self.options, name)
            chosen |= {name: value} if value != getattr(defaults, name) else {}
        return chosen | ({"alias": json.dumps(aliases, sort_keys=True)} if aliases else {})


def make_plan(
    inputs: Sequence[str | Path], folder: RunFolder, options: ClassifyOptions, note: Callable[[str], None]
) -> Plan:
    """Check all that can be checked without writing.

    Raises:
        MribatchError: An input, the bundle, an option or the output folder does not fit; nothing was written.
    """
    utf8_path(folder.path, "--out")
    if options.xlsx:
        require_openpyxl()
    earlier = folder.check_free()
    if not options.overwrite and earlier:
        options = _with_earlier_choices(options, earlier)
    bundle = load_bundle(fetch_bundle(options.model))
    add_aliases(bundle.spec, options.alias)
    threads = options.threads or usable_cores()
    resolved = resolve_inputs(inputs, options.from_file, null=options.null, archives=True)
    patterns, headers = PathPatterns(options.exclude), make_header_reader(options, random_pseudonyms(), threads)
    if not has_candidate(resolved, folder.place, patterns, headers):
        raise no_image_error(resolved, folder.place, patterns, headers)
    measures = options.precision == AUTO and bundle.has_int8
    files = count_by_name(resolved, folder.place, patterns, most=FEWEST_FILES) if measures else 0
    order = make_work_order(bundle, options, threads=threads, note=note, files=files)
    order = dataclasses.replace(order, from_afar=come_from_afar(resolved))
    resumes = earlier is not None and not options.overwrite
    tuning = earlier.tuning if earlier is not None and resumes else find_tuning(bundle, order)
    if tuning is not None:
        order = apply_tuning(order, tuning, options)
        note(f"tuned for this GPU: {tuning}")
    classifier = open_file_classifier(bundle, order, folder.path / WORKER_LOG, note)
    workers = choose_workers(options, order)
    if tuning is not None:
        workers = take_workers(options, workers, tuning)
    if workers.reason:
        note(f"--workers auto: {workers.count}, {workers.reason}")
    return Plan(resolved, folder, options, bundle, order, workers, classifier, tuning)


def make_header_reader(options: ClassifyOptions, pseudonyms: Pseudonyms, threads: int) -> HeaderReader:
    """Return what looks into files that may be DICOM or NIfTI, as the options say."""
    return HeaderReader(
        options.header_options,
        pseudonyms,
        threads=threads,
        timeout_s=options.timeout_s,
        always_range=options.window == AUTO,
    )


def study_versions(listing: ListingFacts) -> dict[str, JsonScalar]:
    """Return the versions of the libraries that read the listed DICOM and NIfTI files."""
    formats = listing.files_by_format or {}
    found: dict[str, JsonScalar] = {}
    for kind, name in STUDY_LIBRARIES.items():
        with contextlib.suppress(PackageNotFoundError):
            found |= {name: version(name)} if kind in formats else {}
    return found


def _with_earlier_choices(options: ClassifyOptions, earlier: RunFile) -> ClassifyOptions:
    """Resolve `auto` as it was when the run began, even where another choice is available today."""
    # A precision goes with ONNX Runtime. Where the command asks for another, the fingerprint will say what differs.
    same_precision = options.precision == AUTO and earlier.precision in PRECISIONS and options.backend != TENSORRT
    same_backend = options.backend == AUTO and options.precision == AUTO
    return dataclasses.replace(
        options,
        backend=earlier.backend if same_backend else options.backend,
        precision=earlier.precision if same_precision else options.precision,
        decoder=earlier.decoder if options.decoder == AUTO else options.decoder,
        batch_size=earlier.batch_size if options.batch_size is None else options.batch_size,
    )

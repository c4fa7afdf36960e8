"""The FileClassifier of a run: in this process for OpenCV with ONNX Runtime, else in a worker process that may die."""

from collections.abc import Callable
from pathlib import Path

from mribatch.core.bundle import Bundle
from mribatch.pipeline.choices import DALI, ONNXRUNTIME, OPENCV, choose_backend, choose_decoder
from mribatch.pipeline.inference.assembly import assemble
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ALWAYS, AUTO, BATCH_SIZE_PER_CORE, MAX_BATCH_SIZE, ClassifyOptions
from mribatch.pipeline.precision import choose_precision
from mribatch.pipeline.records import Choice, FileClassifier
from mribatch.pipeline.worker.supervisor import SupervisedClassifier
from mribatch.trt.request import DEFAULT_BATCH


def make_file_classifier(
    bundle: Bundle,
    options: ClassifyOptions,
    *,
    threads: int,
    log: Path | None,
    note: Callable[[str], None],
    files: int = 0,
) -> FileClassifier:
    """Choose backend, decoder and precision, and put them together; not entered.

    Args:
        bundle: Checked.
        options: What the user asked for.
        threads: Cores to use.
        log: Where a worker process's stderr goes; None: nowhere.
        note: Receives a line about what takes long, such as building an engine.
        files: How many will be classified, for the choice of a precision; more than FEWEST_FILES need not be counted.

    Raises:
        MribatchError: The backend, the decoder or the precision is not available.
    """
    order = make_work_order(bundle, options, threads=threads, note=note, files=files)
    return open_file_classifier(bundle, order, log, note)


def make_work_order(
    bundle: Bundle, options: ClassifyOptions, *, threads: int, note: Callable[[str], None], files: int = 0
) -> WorkOrder:
    """Choose backend, decoder and precision; the arguments are those of `make_file_classifier`.

    Raises:
        MribatchError: The backend, the decoder or the precision is not available.
    """
    backend, decoder = _choose_backend(options), choose_decoder(options.decoder)
    for warning in filter(None, (backend.warning, decoder.warning)):
        note(f"WARNING: {warning}")
    if options.check_data != ALWAYS and decoder.name != DALI:
        note(f"--check-data {options.check_data} changes nothing: the decoder is {decoder.name}, which hides no damage")
    precision = choose_precision(options.precision, bundle, backend, files=files, threads=threads, note=note)
    default = min(BATCH_SIZE_PER_CORE * threads, MAX_BATCH_SIZE)
    if backend.name != ONNXRUNTIME or decoder.name == DALI:
        default = DEFAULT_BATCH.maximum
    return WorkOrder(
        model=str(bundle.folder.absolute()),
        bundle_sha256=bundle.sha256,
        backend=backend,
        backend_required=options.backend != AUTO,
        decoder=decoder,
        decoder_required=options.decoder != AUTO,
        precision=precision,
        batch_size=options.batch_size or default,
        threads=threads,
        checks_data=options.check_data == ALWAYS,
        max_pixels=options.max_pixels,
        timeout_s=options.timeout_s,
        window=options.window,
        plane=options.plane,
        volume=options.header_options.volume,
        dicom_anywhere=options.dicom_anywhere,
    )


def open_file_classifier(
    bundle: Bundle, order: WorkOrder, log: Path | None, note: Callable[[str], None]
) -> FileClassifier:
    """Return what does the work of an order, not entered: in this process, or in a worker that may die."""
    if (order.backend.name, order.decoder.name) == (ONNXRUNTIME, OPENCV):
        return assemble(bundle, order, note)
    return SupervisedClassifier(order, log, note)


def _choose_backend(options: ClassifyOptions) -> Choice:
    if options.precision == AUTO or options.backend != AUTO:
        return choose_backend(options.backend)
    return Choice(ONNXRUNTIME, f"computes in {options.precision}, as requested")

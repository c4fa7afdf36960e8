"""Which backend and decoder a run uses, and why. `auto` is resolved here, once."""

from collections.abc import Callable
from dataclasses import dataclass

from mribatch.bundle import Bundle
from mribatch.classifier import Classifier
from mribatch.errors import Interrupted, MribatchError
from mribatch.pipeline.options import AUTO, BATCH_SIZE_PER_CORE, MAX_BATCH_SIZE, ClassifyOptions
from mribatch.pipeline.records import Decoder
from mribatch.trt.sidecar import DEFAULT_BATCH


@dataclass(frozen=True)
class Choice:
    """A resolved option and the reason, both shown to the user."""

    name: str
    reason: str


@dataclass(frozen=True)
class Stages:
    """The two heavy stages of a run, made but not yet entered."""

    backend: Choice
    decoder: Choice
    batch_size: int
    classify: Classifier
    decode: Decoder


def choose_backend(wanted: str) -> Choice:
    """Resolve --backend.

    Raises:
        MribatchError: The backend is not available; says what is missing.
    """
    if wanted == "tensorrt":
        from mribatch.trt.ready import usable_flavour

        return Choice("tensorrt", f"asked for; {usable_flavour()}")
    reason = "asked for" if wanted != AUTO else "runs on every CPU; --backend tensorrt uses an NVIDIA GPU"
    return Choice("onnxruntime", reason)


def choose_decoder(wanted: str) -> Choice:
    """Resolve --decoder.

    Raises:
        MribatchError: The decoder is not available; says what is missing.
    """
    if wanted == "dali":
        raise MribatchError(
            "--decoder dali cannot run yet: this version of mribatch does not decode with NVIDIA DALI",
            "use --decoder opencv (the same pixels on the CPU)",
        )
    reason = "asked for" if wanted != AUTO else "the only decoder of this version; runs on every CPU"
    return Choice("opencv", reason)


def build_stages(bundle: Bundle, options: ClassifyOptions, threads: int) -> Stages:
    """Make the stages, not entered. The TensorRT backend builds or loads its engine here and proves it on the GPU."""
    backend, decoder = choose_backend(options.backend), choose_decoder(options.decoder)
    batch_size = options.batch_size or min(BATCH_SIZE_PER_CORE * threads, MAX_BATCH_SIZE)
    if backend.name == "tensorrt":
        batch_size = options.batch_size or DEFAULT_BATCH.maximum
        backend, classify = _tensorrt(bundle, batch_size, threads)
    else:
        classify = _onnxruntime(bundle, threads)
    decode = _DECODERS[decoder.name](bundle, options, batch_size, threads)
    return Stages(backend, decoder, batch_size, classify, decode)


def _tensorrt(bundle: Bundle, batch_size: int, threads: int) -> tuple[Choice, Classifier]:
    """An engine that reproduces the golden answers; ONNX Runtime, with the reason, where none does."""
    from mribatch.trt.ready import ready

    try:
        made = ready(bundle, batch_size)
    except Interrupted:
        raise
    except MribatchError as error:
        return Choice("onnxruntime", f"fell back from tensorrt: {error.problem}"), _onnxruntime(bundle, threads)
    return Choice("tensorrt", made.reason), made.classifier


def _onnxruntime(bundle: Bundle, threads: int) -> Classifier:
    from mribatch.pipeline.infer_onnxruntime import OnnxRuntimeClassifier

    return OnnxRuntimeClassifier(bundle, threads)


def _opencv(bundle: Bundle, options: ClassifyOptions, batch_size: int, threads: int) -> Decoder:
    from mribatch.pipeline.decode_ahead import DecodeAhead

    return DecodeAhead(
        height=bundle.spec.height,
        width=bundle.spec.width,
        batch_size=batch_size,
        threads=threads,
        max_pixels=options.max_pixels,
        timeout_s=options.timeout_s,
    )


_DECODERS: dict[str, Callable[[Bundle, ClassifyOptions, int, int], Decoder]] = {"opencv": _opencv}

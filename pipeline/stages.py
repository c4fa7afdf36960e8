"""Which backend and decoder a run uses, and why. `auto` is resolved here, once."""

from collections.abc import Callable
from dataclasses import dataclass

from mribatch.bundle import Bundle
from mribatch.classifier import Classifier
from mribatch.errors import MribatchError
from mribatch.pipeline.options import AUTO, BATCH_SIZE_PER_CORE, MAX_BATCH_SIZE, ClassifyOptions
from mribatch.pipeline.records import Decoder


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
        raise MribatchError(
            "--backend tensorrt cannot run yet: this version of mribatch builds no TensorRT engines",
            "use --backend onnxruntime (the same results on the CPU)",
        )
    reason = "asked for" if wanted != AUTO else "the only backend of this version; runs on every CPU"
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
    """Make the stages; loads no library and touches no device."""
    backend, decoder = choose_backend(options.backend), choose_decoder(options.decoder)
    batch_size = options.batch_size or min(BATCH_SIZE_PER_CORE * threads, MAX_BATCH_SIZE)
    classify = _CLASSIFIERS[backend.name](bundle, threads)
    decode = _DECODERS[decoder.name](bundle, options, batch_size, threads)
    return Stages(backend, decoder, batch_size, classify, decode)


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


_CLASSIFIERS: dict[str, Callable[[Bundle, int], Classifier]] = {"onnxruntime": _onnxruntime}
_DECODERS: dict[str, Callable[[Bundle, ClassifyOptions, int, int], Decoder]] = {"opencv": _opencv}

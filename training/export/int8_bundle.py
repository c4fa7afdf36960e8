"""Adds an INT8 graph to a bundle: made, measured against the FP32 graph, gated, and written down in bundle.json."""

import json
import math
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, float64, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import CARD_FILE, INT8_FILE, SPEC_FILE, Bundle, load_bundle
from mribatch.core.classifier import Classifier
from mribatch.core.errors import MribatchError
from mribatch.core.files import write_json
from mribatch.core.gate import ON_CPU, gate
from mribatch.core.model_spec import INT8, ModelSpec, Tolerance
from mribatch.core.processor import find_processor
from mribatch.core.text import decode_name
from mribatch.pipeline.decode.file import decode_file
from mribatch.pipeline.inference.onnxruntime import ROWS_PER_CALL, OnnxRuntimeClassifier
from mribatch.pipeline.listing.discover import Discovery, resolve_inputs
from mribatch.training.export.bundle import check_replaceable, publishing_bundle
from mribatch.training.export.quantization import CALIBRATION_IMAGES, choose_evenly, quantize

COMPARED_IMAGES = 512
LARGEST_DIFFERENCE = 0.35  # |Δp| on a golden slice beyond which too much is lost
_HEADROOM = 0.02  # the kernels of processors agree to the last bit; versions of ONNX Runtime and rounding need not
_ROUNDS = 7
_CARD_TITLE = "## INT8"


@dataclass(frozen=True, kw_only=True)
class GraphAgreement:
    """INT8 against FP32 on images that gave no range. |Δp| of an image: the largest of its classes."""

    images: int
    training_images: int | None  # of these, by the bundle's hashes; None where it has none
    same_class: int
    mean_difference: float  # over images and classes
    p99_difference: float  # 99 % of images differ by no more
    max_difference: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Processor milliseconds per image on one thread: medians of interleaved rounds."""

    fp32_ms: float
    int8_ms: float
    processor: str

    @property
    def gain(self) -> float:
        return self.fp32_ms / self.int8_ms


@dataclass(frozen=True, kw_only=True)
class Int8Facts:
    """What bundle.json records as `int8`."""

    calibration_images: int
    calibration_sha256: str  # of their pixels
    onnxruntime: str
    golden_max_difference: float
    comparison: GraphAgreement
    speed: Speed
    note: str = ""

    def to_card(self) -> str:
        """The section of the model card."""
        compared, speed = self.comparison, self.speed
        known = compared.training_images
        seen = "" if known is None else f" ({known} of them training images of the model, whose agreement flatters)"
        return (
            f"{_CARD_TITLE}\n\n`{INT8_FILE}` is the same network in 8 bits (QDQ, per channel, ranges from "
            f"{self.calibration_images} images), for ONNX Runtime on the CPU. Against the FP32 graph, on "
            f"{compared.images} other images{seen}: the same class for {compared.same_class}, |Δp| "
            f"{compared.mean_difference:.4f} on average, at most {compared.p99_difference:.3f} for 99 % of the images "
            f"and {compared.max_difference:.3f} for all. {speed.gain:.1f} times as fast: {speed.int8_ms:.2f} against "
            f"{speed.fp32_ms:.2f} ms of processor time an image, one thread, medians of {_ROUNDS} interleaved rounds, "
            f"{speed.processor}, ONNX Runtime {self.onnxruntime}." + (f"\n\n{self.note}" if self.note else "")
        )


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Images at the model's size, uint8 (n, height, width, 1), no image in both."""

    calibration: NDArray[uint8]
    compared: NDArray[uint8]


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse to replace a bundle that is not given up, or anything else.

    Raises:
        MribatchError: There is something at `out`.
    """
    check_replaceable(out)
    if (out / SPEC_FILE).is_file() and not overwrite:
        raise MribatchError(f"{out} holds a bundle", "choose another --out, or add --overwrite")


def read_slices(folder: Path, height: int, width: int) -> Slices:
    """Choose images of a folder at even distances in the order of `classify`, every other for either purpose.

    Raises:
        MribatchError: There is no folder, or no image in it can be read.
    """
    if not folder.is_dir():
        raise MribatchError(f"there is no folder '{folder}'", "name a folder of images")
    with tempfile.TemporaryDirectory(prefix="mribatch-") as scratch:
        inputs = resolve_inputs([folder])
        with Discovery(inputs, Path(scratch) / "names.sqlite") as discovery:
            found = [inputs[0].root + b"/" + entry.path for entry in discovery.files() if entry.skipped is None]
    chosen = choose_evenly(len(found), CALIBRATION_IMAGES + COMPARED_IMAGES)
    decoded = [decode_file(found[place], height, width).pixels for place in chosen]
    pixels = [image for image in decoded if image is not None]
    if not pixels:
        raise MribatchError(f"no image in {decode_name(bytes(folder))[0]} can be read", "name a folder of images")
    return divide_slices(np.stack(pixels))


def divide_slices(pixels: NDArray[uint8]) -> Slices:
    """Divide images into those that give ranges and those that are compared, spread over each other."""
    chosen = pixels[choose_evenly(len(pixels), CALIBRATION_IMAGES + COMPARED_IMAGES)]
    gives = np.zeros(len(chosen), np.bool_)
    gives[choose_evenly(len(chosen), min(CALIBRATION_IMAGES, -(-len(chosen) // 2)))] = True
    return Slices(calibration=chosen[gives], compared=chosen[~gives])


def add_int8(source: Path, slices: Slices, out: Path, *, note: str = "") -> Int8Facts:
    """Write a copy of a bundle with an INT8 graph; `out` may be the bundle itself.

    Args:
        source: Folder of the bundle.
        slices: Images as the model will see them.
        out: Folder of the new bundle; appears as a whole or not at all.
        note: A paragraph for the model card.

    Raises:
        MribatchError: The graph loses too much, or `out` holds something else.
    """
    check_replaceable(out)
    before = load_bundle(str(source))
    graph = quantize(before.model, slices.calibration)
    bundle, difference = _with_tolerance(before, graph)
    facts = Int8Facts(
        calibration_images=len(slices.calibration),
        calibration_sha256=sha256(slices.calibration.tobytes()).hexdigest(),
        onnxruntime=OnnxRuntimeClassifier(bundle, 1).library_version,
        golden_max_difference=round(difference, 6),
        comparison=compare_graphs(bundle, slices.compared),
        speed=measure_speed(bundle, slices.compared),
        note=note,
    )
    with publishing_bundle(out) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / INT8_FILE).write_bytes(graph)
        write_json(folder / SPEC_FILE, _add_to_json(json.loads((source / SPEC_FILE).read_bytes()), bundle.spec, facts))
        card = (source / CARD_FILE).read_text(encoding="utf-8") if (source / CARD_FILE).is_file() else ""
        (folder / CARD_FILE).write_text(put_into_card(card, facts), encoding="utf-8")
        _check_gate(load_bundle(str(folder)))
    return facts


def put_into_card(card: str, facts: Int8Facts) -> str:
    """Replace the card's section about INT8, or add one before the licences, else at the end."""
    before, found, rest = card.partition(f"{_CARD_TITLE}\n")
    if found:
        _, heading, rest = rest.partition("\n## ")
    else:
        before, heading, rest = card.partition("\n## Licences")
    after = heading.lstrip("\n") + rest
    return f"{before.rstrip()}\n\n{facts.to_card()}\n" + (f"\n{after}" if after else "")


def compare_graphs(bundle: Bundle, images: NDArray[uint8]) -> GraphAgreement:
    """Answer images with both graphs of a bundle."""
    exact, fast = (_answer(bundle, precision, images).astype(float64) for precision in ("fp32", INT8))
    difference = np.abs(exact - fast)
    largest = difference.max(axis=1, initial=0.0)
    known = bundle.training_images
    return GraphAgreement(
        images=len(images),
        training_images=None if known is None else sum(match is not None for match in known.find(images)),
        same_class=int((exact.argmax(axis=1) == fast.argmax(axis=1)).sum()),
        mean_difference=round(float(difference.mean()), 6),
        p99_difference=round(float(np.quantile(largest, 0.99)), 6),
        max_difference=round(float(largest.max(initial=0.0)), 6),
    )


def measure_speed(bundle: Bundle, images: NDArray[uint8]) -> Speed:
    """Time both graphs on one thread, a few batches of the images in turn."""
    batch = np.resize(images, (4 * ROWS_PER_CALL, *images.shape[1:]))
    with OnnxRuntimeClassifier(bundle, 1) as exact, OnnxRuntimeClassifier(bundle, 1, INT8) as fast:
        rounds = [[_time(classify, batch) for classify in (exact, fast)] for _ in range(_ROUNDS + 1)]
    fp32, int8 = (statistics.median(column) / len(batch) * 1e3 for column in zip(*rounds[1:], strict=True))
    return Speed(fp32_ms=round(fp32, 3), int8_ms=round(int8, 3), processor=find_processor().name)


def _time(classify: Classifier, batch: NDArray[uint8]) -> float:
    begin = time.process_time()
    classify(batch)
    return time.process_time() - begin


def _with_tolerance(bundle: Bundle, graph: bytes) -> tuple[Bundle, float]:
    """The bundle with the graph and a tolerance just above what the graph does to the golden slices.

    Raises:
        MribatchError: It does more than LARGEST_DIFFERENCE.
    """
    expected = bundle.golden.probabilities.astype(float64)
    trial = replace(bundle, int8=graph)
    got = _answer(trial, INT8, bundle.golden.images).astype(float64)
    difference = float(np.abs(got - expected).max())
    if not difference <= LARGEST_DIFFERENCE:  # NaN compares False
        raise MribatchError(
            f"in 8 bits, '{bundle.spec.name}' changes a probability of a golden slice by {difference:.2f}, more than "
            f"{LARGEST_DIFFERENCE}",
            "use the model in fp32; networks with ReLU6 and without squeeze-and-excitation lose the least",
        )
    ordered = np.sort(expected, axis=1)
    flipped = got.argmax(axis=1) != expected.argmax(axis=1)
    margin = float((ordered[:, -1] - ordered[:, -2]).max(where=flipped, initial=0.0))
    tolerance = replace(bundle.spec.tolerance, int8=_round_up(difference), int8_margin=_round_up(margin))
    return replace(trial, spec=_with_graph(bundle.spec, graph, tolerance)), difference


def _with_graph(spec: ModelSpec, graph: bytes, tolerance: Tolerance) -> ModelSpec:
    return replace(spec, int8_sha256=sha256(graph).hexdigest(), tolerance=tolerance)


def _add_to_json(content: dict[str, Any], spec: ModelSpec, facts: Int8Facts) -> dict[str, Any]:
    """The content of bundle.json with what is new, each key in its place as in `ModelSpec.to_json`."""
    known = content | {"tolerance": asdict(spec.tolerance), "int8_sha256": spec.int8_sha256, "int8": asdict(facts)}
    order = [key for key in content if key not in ("int8_sha256", "int8")]
    order.insert(order.index("trained"), "int8_sha256")  # behind the other hashes
    return {key: known[key] for key in (*order, "int8")}


def _round_up(value: float) -> float:
    """To hundredths, with some headroom."""
    return math.ceil((value + _HEADROOM) * 100) / 100


def _answer(bundle: Bundle, precision: str, images: NDArray[uint8]) -> NDArray[float32]:
    with OnnxRuntimeClassifier(bundle, 1, precision) as classifier:
        return classifier(images)


def _check_gate(bundle: Bundle) -> None:
    with OnnxRuntimeClassifier(bundle, 1, INT8) as classifier:
        report = gate(classifier, bundle, batch_sizes=(ROWS_PER_CALL,), verified=ON_CPU, slices_repeated=0)
    if not report.holds:
        raise MribatchError(f"the INT8 graph that was written does not pass the gate: {report}", "report this")

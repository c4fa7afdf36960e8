"""How far FP16 moves a model's answers: python -m benchmarks.fp16_agreement [--data FOLDER] [--model MODEL]

The FP32 graph in ONNX Runtime against the graph that an FP16 engine is built from, on the same decoded images, on the
CPU: once with every FP16 tensor rounded in memory, as a GPU stores it, and once as ONNX Runtime runs the FP16 graph by
itself, in FP32 between the rounded weights. No GPU takes part, so this measures the number format and not an engine.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS, conditions
from mribatch.core.bundle import DEFAULT_MODEL, Bundle, load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.file import decode_file
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.trt.graph.cpu_session import CpuClassifier
from mribatch.trt.graph.emulation import RoundingClassifier, gate_emulated
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.image_agreement import ImageAgreement, compare_on_images

BATCH_SIZE = 16
_SUFFIXES = (".jpg", ".jpeg", ".png")


def measure(bundle: Bundle, images: NDArray[uint8]) -> dict[str, Any]:
    """Both comparisons on uint8 (n, height, width, 1), and the gate on the golden slices."""
    graph = convert_bundle(bundle)
    report = gate_emulated(bundle, graph.model)
    with OnnxRuntimeClassifier(bundle, threads=usable_cores()) as reference:
        with RoundingClassifier(graph.model) as rounding:
            rounded = compare_on_images(reference, rounding, _batches(images))
        with CpuClassifier(lambda: graph.model, precision="fp16") as plain:
            as_it_is = compare_on_images(reference, plain, _batches(images))
    return {
        "model": bundle.spec.name,
        "model_sha256": bundle.spec.model_sha256,
        "fp16_sha256": graph.sha256,
        "bytes": {"fp32": len(bundle.model), "fp16": len(graph.model)},
        "half_nodes": graph.half_nodes,
        "fp32_nodes": list(graph.fp32_nodes),
        "verified": report.verified,
        "images": len(images),
        "every_tensor_rounded": _figures(rounded),
        "graph_as_it_is": _figures(as_it_is),
        "golden": {"holds": report.holds, "max_difference": report.max_difference},
    }


def _batches(images: NDArray[uint8]) -> Iterator[NDArray[uint8]]:
    return (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))


def _figures(agreement: ImageAgreement) -> dict[str, Any]:
    return {
        "same_class": agreement.same,
        "share": agreement.share,
        "max_difference": agreement.max_difference,
        "margins_of_flips": sorted(round(flip.margin, 6) for flip in agreement.flips),
    }


def decoded(paths: Sequence[Path], height: int, width: int) -> NDArray[uint8]:
    """The pixels of those files that are whole images, uint8 (n, height, width, 1)."""
    images = (decode_file(os.fsencode(path), height, width).pixels for path in paths)
    return np.stack([pixels for pixels in images if pixels is not None])


def spread_over(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths at even distances, or all where there are fewer."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))
    return [paths[place] for place in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real images; synthetic ones are drawn without it")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--count", type=int, default=500, help="images to compare")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts, bundle = conditions(), load_bundle(options.model)
    height, width = bundle.spec.height, bundle.spec.width
    if options.data:
        paths = [path for path in sorted(options.data.rglob("*")) if path.suffix.lower() in _SUFFIXES]
        images = decoded(spread_over(paths, options.count), height, width)
    else:  # other seeds than those of the golden slices
        images = np.stack([draw_slice(1000 + seed, height, width) for seed in range(options.count)])[..., None]
    result = measure(bundle, images)
    kind = "real" if options.data else "synthetic"
    name = f"fp16_agreement-{bundle.spec.name}-{kind}-{len(images)}images-cpu.json"
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / name, {"conditions": facts, "data": kind} | result)
    for key in ("every_tensor_rounded", "graph_as_it_is"):
        figures = result[key]
        print(f"{key:<22}{figures['same_class']}/{len(images)} same class, max |Δp| {figures['max_difference']:.2e}")
    print(f"written: {options.results / name}")


if __name__ == "__main__":
    main()

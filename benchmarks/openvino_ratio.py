"""OpenVINO against ONNX Runtime on the graphs that ship: python -m benchmarks.openvino_ratio [--rounds N]

Both run on one thread, as `mribatch classify` runs ONNX Runtime on each core, with the same drawn slices; they take
turns, and ratios are of one round. OpenVINO gets the batch size that suits it best of those tried. `pip
install openvino` first; mribatch itself does not use it. Writes benchmarks/results/openvino_ratio-*.json.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS, conditions, machine, spread
from mribatch.core.bundle import ROLES, Bundle, load_bundle, shipped_models
from mribatch.core.files import write_json
from mribatch.core.model_spec import FP32, INPUT_NAME, INT8
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.inference.onnxruntime import ROWS_PER_CALL, OnnxRuntimeClassifier

BATCHES = (ROWS_PER_CALL, 32)
_IMAGES = 192
_MIN_RATIO = 1.3  # for the default or the fast model; below, a second runtime is not worth its size and rounding

Images = NDArray[uint8]
Probabilities = NDArray[float32]


class OpenVinoGraph:
    """One graph, compiled for one thread and one batch size."""

    def __init__(self, bundle: Bundle, precision: str, batch: int) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(model=bundle.graph(precision))
        model.reshape({INPUT_NAME: [batch, bundle.spec.height, bundle.spec.width, 1]})
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._batch = batch

    def __call__(self, images: Images) -> Probabilities:
        """Probabilities, float32 (batch, classes), for uint8 (batch, height, width, 1); whole batches only."""
        found = []
        for start in range(0, len(images), self._batch):
            self._request.infer({INPUT_NAME: images[start : start + self._batch]})
            found.append(self._request.get_output_tensor(0).data.copy())
        return np.concatenate(found)


def measure_graph(bundle: Bundle, precision: str, rounds: int) -> dict[str, Any]:
    """Both runtimes in turns on one graph of a bundle."""
    height, width = bundle.spec.height, bundle.spec.width
    images = np.stack([draw_slice(seed, height, width) for seed in range(_IMAGES)])[..., None]
    with OnnxRuntimeClassifier(bundle, threads=1, precision=precision) as ours:
        candidates = {batch: OpenVinoGraph(bundle, precision, batch) for batch in BATCHES}
        first = {batch: _seconds(graph, images) for batch, graph in candidates.items()}  # warms up, too
        first = {batch: _seconds(graph, images) for batch, graph in candidates.items()}
        batch = min(first, key=lambda one: first[one])
        theirs, expected = candidates[batch], ours(images)
        pairs = [(_seconds(ours, images), _seconds(theirs, images)) for _ in range(rounds)]
        difference = np.abs(theirs(images) - expected)
    return {
        "openvino_batch": batch,
        "onnxruntime_ms_per_image": spread([1000 * ours_s / _IMAGES for ours_s, _ in pairs]),
        "openvino_ms_per_image": spread([1000 * theirs_s / _IMAGES for _, theirs_s in pairs]),
        "ratio": spread([ours_s / theirs_s for ours_s, theirs_s in pairs]),
        "max_probability_difference": float(difference.max()),
    }


def _seconds(run: Callable[[Images], Probabilities], images: Images) -> float:
    start = time.perf_counter()
    run(images)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    try:
        import openvino
    except ImportError:
        parser.error("openvino is not installed: pip install openvino")
    facts, found = conditions(), {}
    for name in shipped_models():
        bundle = load_bundle(name)
        for precision in (FP32, INT8) if bundle.has_int8 else (FP32,):
            found[f"{name} {precision}"] = one = measure_graph(bundle, precision, rounds)
            print(f"{name:<28}{precision:<6}{one['ratio']['median']:.2f}", flush=True)
    best = max(one["ratio"]["median"] for name, one in found.items() if name.split()[0] in ROLES.values())
    content = {"conditions": facts, "openvino": openvino.__version__, "graphs": found, "worth_it": best >= _MIN_RATIO}
    path = RESULTS / f"openvino_ratio-synthetic-1thread-{machine(facts)}.json"
    write_json(path, content)
    print(f"written: {path}")


if __name__ == "__main__":
    main()

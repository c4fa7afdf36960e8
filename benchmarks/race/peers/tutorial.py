# mypy: disable-error-code="import-not-found,import-untyped"
"""The loop of the tutorials: Pillow opens and resizes each image, ONNX Runtime classifies batch by batch.

The graph is mribatch's default one, the runtime the version that mribatch uses.

Documentation followed:
    https://onnxruntime.ai/docs/get-started/with-python.html
    https://onnxruntime.ai/docs/performance/tune-performance/threading.html
    https://pillow.readthedocs.io/en/stable/handbook/tutorial.html
"""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.race.job import Job, Stage, image_paths, parse_job, write_result

BATCH_SIZE = 32


def classify(job: Job) -> None:
    """Classify batch by batch, write the classes at the end."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(job.model_file, options, providers=["CPUExecutionProvider"])
    (graph_input,) = session.get_inputs()
    _, height, width, _ = graph_input.shape  # uint8, grey, channels last
    paths, classes = image_paths(job.data), list[int]()
    stage = Stage(len(paths))
    for start in range(0, len(paths), BATCH_SIZE):
        pixels = np.stack([read(path, height, width) for path in paths[start : start + BATCH_SIZE]])
        (probabilities, *_) = session.run(None, {graph_input.name: pixels})
        classes.extend(probabilities.argmax(axis=1))
        stage.reach(len(classes))
    write_result(job, zip(paths, classes, strict=True), [stage])


def read(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """One image as height x width x 1 grey pixels, uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BILINEAR))[..., None]


if __name__ == "__main__":
    classify(parse_job(__doc__))

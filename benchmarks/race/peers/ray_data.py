# mypy: disable-error-code="import-not-found,import-untyped"
"""Ray Data: read_images, then map_batches with an actor that holds an ONNX Runtime session.

The graph is mribatch's default one, the runtime the version that mribatch uses. Reading and resizing are Ray's own
tasks; one actor classifies with all threads while they run.

Documentation followed:
    https://docs.ray.io/en/latest/data/working-with-images.html
    https://docs.ray.io/en/latest/data/batch_inference.html
    https://docs.ray.io/en/latest/data/iterating-over-data.html
"""

import logging
import time
from typing import Any

import numpy as np
import ray

from benchmarks.race.job import Job, Stage, image_paths, parse_job, write_result

BATCH_SIZE = 32


class Classifier:
    """An actor of Ray: loads the graph once, classifies batch after batch."""

    def __init__(self, model: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns image (N x height x width, uint8) and path to path, class and when each was classified."""
        (probabilities, *_) = self._session.run(None, {self._name: batch["image"][..., None]})
        classes = probabilities.argmax(axis=1)
        return {"path": batch["path"], "class": classes, "seconds": np.full(len(classes), time.monotonic())}


def classify(job: Job) -> None:
    """Stream the folder through the actor, write the classes at the end."""
    # Two slots at least: the actor holds one, and without another no read task would ever start.
    slots = max(2, job.threads)
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    stage, rows, seconds = Stage(len(image_paths(job.data))), list[tuple[str, int]](), list[float]()
    images = ray.data.read_images(str(job.data), include_paths=True, size=(job.pixels, job.pixels), mode="L")
    predictions = images.map_batches(
        Classifier,
        fn_constructor_kwargs={"model": str(job.model_file), "threads": job.threads},
        batch_size=BATCH_SIZE,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    for batch in predictions.iter_batches(batch_size=None, batch_format="numpy"):
        rows.extend(zip(batch["path"], batch["class"], strict=True))
        seconds.extend(batch["seconds"])
    for done, when in enumerate(sorted(seconds), start=1):
        stage.reach(done, when)
    write_result(job, rows, [stage])
    ray.shutdown()


if __name__ == "__main__":
    classify(parse_job(__doc__))

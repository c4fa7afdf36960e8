# mypy: disable-error-code="import-not-found,import-untyped"
"""Ultralytics: YOLO's predict mode over a folder, streamed, in batches.

yolo11n-cls at 160 pixels, built from its own description with random weights: they decide the answers, not the speed.

Documentation followed:
    https://docs.ultralytics.com/tasks/classify/
    https://docs.ultralytics.com/modes/predict/ (sources, stream=True, batch, imgsz)
"""

import torch
from ultralytics import YOLO

from benchmarks.race.job import Job, Stage, image_paths, parse_job, write_result

BATCH_SIZE = 32


def classify(job: Job) -> None:
    """Predict the whole folder as a stream, write the classes at the end."""
    torch.set_num_threads(job.threads)
    model = YOLO("yolo11n-cls.yaml")
    rows: list[tuple[str, int]] = []
    images = len(image_paths(job.data))
    stage = Stage(images)
    results = model.predict(
        source=str(job.data / "**" / "*.*"),
        stream=True,
        batch=BATCH_SIZE,
        imgsz=job.pixels,
        device="cpu",
        verbose=False,
        save=False,
    )
    for result in results:
        rows.append((result.path, result.probs.top1))
        if len(rows) % BATCH_SIZE == 0 or len(rows) == images:  # results come one by one once a batch is done
            stage.reach(len(rows))
    write_result(job, rows, [stage])


if __name__ == "__main__":
    classify(parse_job(__doc__))

"""What the host does for one image, part by part, in microseconds of CPU time: python parts.py FILES MODEL

The last line that it prints is JSON. It is a script of its own, so that it measures whatever checkout is on PYTHONPATH.
Each part runs alone on one thread, and the fastest of several rounds counts: the machine may be busy.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from mribatch.core.bundle import load_bundle
from mribatch.core.regular_file import read_file
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.jpeg_data import is_read_alike
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.inference.seen import flag_images
from mribatch.pipeline.output.rows import predictions
from mribatch.pipeline.records import ClassifiedBatch, DecodedBatch, DecodedFile, ImageFile

_ROUNDS = 9
_IMAGES = 64


def measure(paths: Sequence[Path], model: str) -> dict[str, float]:
    """Microseconds an image, by part."""
    bundle = load_bundle(model)
    files = [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]
    contents = [read_file(file.file) for file in files]
    verdicts = [probe(content) for content in contents]
    decoded = tuple(
        DecodedFile(file, verdict, len(content), sha256(content).hexdigest(), 0.0)
        for file, verdict, content in zip(files, verdicts, contents, strict=True)
    )
    drawn = [draw_slice(seed, bundle.spec.height, bundle.spec.width) for seed in range(len(files))]
    batch = DecodedBatch(decoded, np.stack(drawn).reshape(len(files), bundle.spec.height, bundle.spec.width, 1))
    answers = np.resize(bundle.golden.probabilities, (len(files), len(bundle.spec.classes)))
    parts: dict[str, Callable[[], object]] = {
        "read": lambda: [read_file(file.file) for file in files],
        "probe": lambda: [probe(content) for content in contents],
        "check_for_damage": lambda: [is_read_alike(content) for content in contents],
        "sha256": lambda: [sha256(content).hexdigest() for content in contents],
        "flags_and_picture_hash": lambda: flag_images(batch, bundle),
        "rows": lambda: predictions(ClassifiedBatch(decoded, answers), bundle.spec.classes),
    }
    return {name: min(_time(part) for _ in range(_ROUNDS)) / len(files) * 1e6 for name, part in parts.items()}


def _time(part: Callable[[], object]) -> float:
    begin = time.thread_time()
    part()
    return time.thread_time() - begin


if __name__ == "__main__":
    print(json.dumps(measure(sorted(Path(sys.argv[1]).iterdir())[:_IMAGES], sys.argv[2])))

# mypy: disable-error-code="import-not-found,import-untyped"
"""The reference's way: OpenCV reads every image into one array, then Keras predicts it.

EfficientNetB3 at 160 x 160 pixels with a new head, as in the notebooks that this project began from. The weights are
random: they decide the answers, not the speed.

    python -m benchmarks.race.peers.reference --data FOLDER --out FILE --threads N --model b3.keras
    python -m benchmarks.race.peers.reference --build b3.keras

Documentation followed:
    https://keras.io/api/models/model_training_apis/ (predict)
    https://keras.io/api/applications/efficientnet/ (EfficientNetB3; scaling is inside the network)
    https://docs.opencv.org/4.x/d4/da8/group__imgcodecs.html (imread)
"""

import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from benchmarks.race.job import Job, Stage, image_paths, parse_job, write_result

PIXELS = 160
CLASSES = 4


def build(path: Path) -> None:
    """Save EfficientNetB3 with random weights (seed 0) and a head of four classes."""
    keras.utils.set_random_seed(0)
    body = keras.applications.EfficientNetB3(include_top=False, weights=None, input_shape=(PIXELS, PIXELS, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(body.output)
    answer = keras.layers.Dense(CLASSES, activation="softmax")(keras.layers.Dropout(0.5)(pooled))
    keras.Model(body.input, answer).save(path)


class Predicted(keras.callbacks.Callback):  # type: ignore[misc]
    """Tell a stage how many images are predicted."""

    def __init__(self, stage: Stage, images: int, batch_size: int) -> None:
        super().__init__()
        self._stage, self._images, self._batch_size = stage, images, batch_size

    def on_predict_batch_end(self, batch: int, logs: object = None) -> None:
        """Called by Keras after each batch."""
        self._stage.reach(min(self._images, (batch + 1) * self._batch_size))


def classify(job: Job) -> None:
    """Read all images, predict them, write their classes."""
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    model = keras.models.load_model(job.model_file, compile=False)
    paths = image_paths(job.data)
    decoding, predicting, batch_size = Stage(len(paths)), Stage(len(paths)), 32  # predict's own default
    images = []
    for path in paths:
        images.append(cv2.resize(cv2.imread(str(path)), (job.pixels, job.pixels)))
        decoding.reach(len(images))
    callback = Predicted(predicting, len(paths), batch_size)
    probabilities = model.predict(np.array(images), batch_size=batch_size, verbose=0, callbacks=[callback])
    write_result(job, zip(paths, probabilities.argmax(axis=1), strict=True), (decoding, predicting))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        build(Path(sys.argv[2]))
    else:
        classify(parse_job(__doc__))

"""What the flag unlike_training finds: python -m benchmarks.unlike_training DATA [--model NAME]

DATA holds brain-mri/ and groups.csv, the images that the model was trained on. Shares that are flagged: training images
that were left out with their series, by class; photographs (scikit-learn's two, cropped), pydicom's test files, noise,
text; and slices of training that were changed. Beside it, the same kind of distance of the network's pooled features.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import float32, float64, int64, uint8
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS, conditions
from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.files import write_json
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.core.onnx_head import add_output, find_pooling_head
from mribatch.core.synthetic import draw_slice
from mribatch.core.training_look import TrainingLook
from mribatch.training.data.classes import ClassList
from mribatch.training.data.images import DataSet, load
from mribatch.training.data.split import group, read_groups

_SIZE = (512, 512)  # stored, of every changed image: sizes are not what is measured
_CHANGED = 300  # slices
_MADE = 200  # of each kind of picture
_COMPONENTS, _LIMIT = 20, 0.99  # of the network's features

Pixels = NDArray[uint8]


def photographs(random: np.random.Generator, side: int) -> Pixels:
    """Crops of scikit-learn's sample images, in grey."""
    from sklearn.datasets import load_sample_images

    pictures = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in load_sample_images().images]
    crops = []
    for _ in range(_MADE):
        picture, length = pictures[random.integers(len(pictures))], int(random.integers(120, 420))
        top, left = (int(random.integers(edge - length + 1)) for edge in picture.shape)
        crops.append(cv2.resize(picture[top : top + length, left : left + length], (side, side)))
    return np.stack(crops).astype(uint8)


def pydicom_files(side: int) -> Pixels:
    """Pictures of pydicom's own test files, by the range of their values."""
    import pydicom

    found = []
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        with warnings.catch_warnings(action="ignore"):
            try:
                values = pydicom.dcmread(path).pixel_array
            except Exception:  # broken on purpose, or compressed: not what is measured
                continue
        while values.ndim > 2:
            values = values[..., 0] if values.shape[-1] == 3 else values[0]
        if min(values.shape) >= 40:
            scaled = (values.astype(float64) - values.min()) / max(1, np.ptp(values)) * 255
            found.append(cv2.resize(scaled.astype(uint8), (side, side)))
    return np.stack(found).astype(uint8)


def text_pages(random: np.random.Generator, side: int) -> Pixels:
    """Black letters on white."""
    pages = []
    for _ in range(_MADE // 2):
        page = np.full((2 * side, 2 * side), 255, uint8)
        for line in range(20, 2 * side, 18):
            letters = "".join(map(chr, random.integers(97, 122, 30)))
            cv2.putText(page, letters, (5, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0)
        pages.append(cv2.resize(page, (side, side)))
    return np.stack(pages).astype(uint8)


def made_pictures(random: np.random.Generator, side: int) -> Iterator[tuple[str, Pixels]]:
    """Pictures that are no slices."""
    shape = (_MADE, side, side)
    yield "photographs", photographs(random, side)
    yield "pydicom's test files", pydicom_files(side)
    yield "text", text_pages(random, side)
    yield "uniform noise", random.integers(0, 256, shape).astype(uint8)
    yield "dark noise", _clip(random.normal(8, 4, shape))
    smooth = (
        cv2.GaussianBlur(random.normal(size=shape[1:]), (0, 0), float(random.uniform(1, 20))) for _ in range(_MADE)
    )
    yield "smooth noise", np.stack([_clip((each - each.min()) / np.ptp(each) * 255) for each in smooth])
    yield "drawn slices", np.stack([draw_slice(seed, side, side) for seed in range(_MADE)])


def changed_slices(slices: Pixels, random: np.random.Generator) -> Iterator[tuple[str, Pixels]]:
    """Slices of training, changed. slices: uint8 (n, side, side)."""
    side, third = slices.shape[1], slices.shape[1] // 3

    def each(change: Any) -> Pixels:
        return np.stack([np.asarray(change(one), uint8) for one in slices])

    def small(one: Pixels) -> Any:
        edge = (side - side // 2) // 2
        inner = cv2.resize(one, (side - 2 * edge, side - 2 * edge))
        return cv2.copyMakeBorder(inner, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(0,))

    yield "inverted", 255 - slices
    yield "upside down", slices[:, ::-1]
    yield "turned by 90 degrees", slices.transpose(0, 2, 1)[:, ::-1]
    yield "cropped to a third", each(lambda one: cv2.resize(one[third : 2 * third, third : 2 * third], (side, side)))
    yield "half the size on black", each(small)
    yield "with noise of 40 grey levels", _clip(slices + random.normal(0, 40, slices.shape))
    yield "blurred by 5 pixels", each(lambda one: cv2.GaussianBlur(one, (0, 0), 5))
    yield "a quarter as bright", slices // 4
    yield "15 % brighter", _clip(slices * 1.15)
    yield "JPEG of quality 30", each(lambda one: cv2.imdecode(cv2.imencode(".jpg", one, [1, 30])[1], 0))
    quarters = np.stack([cv2.resize(one, (side // 2, side // 2)) for one in slices[: len(slices) // 4 * 4]])
    rows = np.concatenate([quarters[0::2], quarters[1::2]], axis=2)
    yield "four in one picture", np.concatenate([rows[0::2], rows[1::2]], axis=1).astype(uint8)


def _clip(values: NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(values, 0, 255), uint8)


class NetworkFeatures:
    """Pooled features of a network, and a distance of these from those of its training images."""

    def __init__(self, bundle: Bundle, training: Pixels, folds: NDArray[int64]) -> None:
        import onnxruntime

        head = find_pooling_head(bundle.model, OUTPUT_NAME)
        assert head is not None, "the network ends in pooling and one dense layer"
        self._tensor, self._axes = head.feature_map, (2, 3) if head.layout == "NCHW" else (1, 2)
        self._session = onnxruntime.InferenceSession(add_output(bundle.model, self._tensor))
        values = self._pool(training)
        distances = np.zeros(len(values))
        for fold in np.unique(folds):
            self._fit(values[folds != fold])
            distances[folds == fold] = self._distances(values[folds == fold])
        self._fit(values)
        self._limit = float(np.quantile(distances, _LIMIT))

    def find_unlike(self, pixels: Pixels) -> NDArray[np.bool_]:
        return np.asarray(self._distances(self._pool(pixels)) > self._limit)

    def _pool(self, pixels: Pixels) -> NDArray[float32]:
        batches = (pixels[start : start + 8, ..., None] for start in range(0, len(pixels), 8))
        maps = (self._session.run([self._tensor], {INPUT_NAME: batch})[0] for batch in batches)
        return np.concatenate([each.mean(axis=self._axes) for each in maps])

    def _fit(self, values: NDArray[float32]) -> None:
        self._mean, self._spread = values.mean(axis=0), values.std(axis=0) + 1e-3
        _, sizes, directions = np.linalg.svd((values - self._mean) / self._spread, full_matrices=False)
        self._directions = directions[:_COMPONENTS] / (sizes[:_COMPONENTS, None] / np.sqrt(len(values)))

    def _distances(self, values: NDArray[float32]) -> NDArray[float64]:
        moved = (values - self._mean) / self._spread @ self._directions.T
        return np.asarray(np.sqrt((moved.astype(float64) ** 2).sum(axis=1)))


def measure_false_alarms(images: DataSet, units: NDArray[int64], folds: NDArray[int64]) -> dict[str, float]:
    """Share of each class that is flagged by statistics of the other folds, their limits included."""
    flagged = np.zeros(len(images.labels), np.bool_)
    for fold in np.unique(folds):
        inside = folds == fold
        look = TrainingLook.of_images(images.pixels[~inside], _sizes(images, ~inside), units[~inside])
        assert look is not None
        flagged[inside] = look.find_unlike(images.pixels[inside], _sizes(images, inside))
    shares = {name: flagged[images.labels == place].mean() for place, name in enumerate(images.classes.names)}
    return {"all": float(flagged.mean())} | {name: float(share) for name, share in shares.items()}


def _sizes(images: DataSet, chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [size for size, wanted in zip(images.stored_sizes, chosen, strict=True) if wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the flag unlike_training finds.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="efficientnet-lite2")
    given = parser.parse_args()
    facts, random = conditions(), np.random.default_rng(0)
    bundle = load_bundle(given.model)
    assert bundle.training_look is not None
    classes = ClassList(bundle.spec.classes, dict(bundle.spec.aliases))
    images = load(given.data / "brain-mri", classes, bundle.spec.height)
    table = read_groups(given.data / "groups.csv")
    units = group(images.paths, images.content_sha256, table, given.data / "brain-mri").units
    numbers = np.unique(units, return_inverse=True)[1]
    folds = random.permutation(int(numbers.max()) + 1)[numbers] % 5
    alarms = measure_false_alarms(images, units, folds)
    print(alarms)
    network = NetworkFeatures(bundle, images.pixels[..., 0], folds)
    slices = images.pixels[random.permutation(len(images.pixels))[:_CHANGED], :, :, 0]
    found = {}
    for name, pixels in (*made_pictures(random, bundle.spec.height), *changed_slices(slices, random)):
        flagged = bundle.training_look.find_unlike(pixels[..., None], [_SIZE] * len(pixels))
        found[name] = {
            "pictures": len(pixels),
            "flagged": round(float(flagged.mean()), 4),
            "by_network_features": round(float(network.find_unlike(pixels).mean()), 4),
        }
        print(name, found[name])
    name = f"unlike_training-{given.model}-real-{len(images.labels)}images.json"
    content = {"conditions": facts, "images": len(images.labels), "units": int(numbers.max()) + 1}
    write_json(RESULTS / name, content | {"false_alarms": alarms, "found": found})
    print(f"written: {RESULTS / name}")


if __name__ == "__main__":
    main()

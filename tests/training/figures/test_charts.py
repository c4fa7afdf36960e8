"""Every picture is drawn whole, says what it shows, and keeps its texts apart on one screen."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'train'")

import cv2
import matplotlib.axes

from mribatch.core.synthetic import draw_slice
from mribatch.report.metrics import confusion, headline
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.evaluation.scores import Evaluation
from mribatch.training.figures import charts, slices
from mribatch.training.figures.draw_all import Subject, draw_all
from mribatch.training.figures.page import format_percent, lay_out_tiles
from mribatch.training.figures.slices import PredictedSlices
from mribatch.training.fit.history import Epoch
from tests.training.drawn_texts import Texts, drawn_pages  # noqa: F401  (the fixture `pages`)

CLASSES = BRAIN_TUMORS.names
PROTOCOL = "grouped split, split seed 0; intervals over 40 groups"
COUNT = 60
PIXELS = np.stack([draw_slice(seed, 48, 48) for seed in range(COUNT)])[..., None]
LABELS = np.arange(COUNT) % 4


def scores(labels: np.ndarray = LABELS, classes: int = 4, wrong: int = 5, seed: int = 0) -> np.ndarray:
    """Probabilities that are right but for the first `wrong` images."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 0.5, (len(labels), classes))
    given = np.where(np.arange(len(labels)) < wrong, (labels + 1) % classes, labels)
    logits[np.arange(len(labels)), given] += random.uniform(2, 6, len(labels))
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), np.float32)


PROBABILITIES = scores()
HISTORY = [
    Epoch(epoch=e, loss=1 / e, accuracy=1 - 0.6 / e, val_loss=1.2 / e, val_accuracy=1 - 0.7 / e, seconds=3)
    for e in range(1, 9)
]


def draw_everything(
    folder: Path, classes: tuple[str, ...], labels: np.ndarray, probabilities: np.ndarray
) -> list[Path]:
    metrics = headline(labels, probabilities, classes, protocol=PROTOCOL, resamples=20)
    subject = Subject(
        name="toy",
        classes=classes,
        protocol=PROTOCOL,
        pixels=PIXELS[np.arange(len(labels)) % COUNT],
        labels=labels,
        tested=np.ones(len(labels), dtype=bool),
        evaluation=Evaluation(probabilities, tuple(metrics), confusion(labels, probabilities, classes)),
    )
    return [
        *draw_all(folder, subject),
        *charts.draw_training_curves(HISTORY, 7, title="toy: training", folder=folder),
    ]


def predicted(pixels: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> PredictedSlices:
    return PredictedSlices(pixels=pixels, labels=labels, probabilities=probabilities, classes=CLASSES)


LONG = "a_class_with_a_name_of_more_letters_than_any_place_has"
MANY = tuple(f"class_{number:02}" for number in range(30))


@pytest.mark.parametrize(
    "classes",
    [CLASSES, ("no_tumor", "tumor"), (LONG + "_1", LONG + "_2", "c$lass$"), MANY[:11], MANY],
    ids=["four", "two", "long", "eleven", "thirty"],
)
def test_no_text_touches_another_or_the_edge(classes: tuple[str, ...], pages: dict[str, Texts], tmp_path: Path) -> None:
    labels = np.arange(COUNT) % len(classes)
    draw_everything(tmp_path, classes, labels, scores(labels, len(classes)))
    assert set(pages) == {
        "training_curves",
        "confusion_matrix",
        "class_table",
        "reliability",
        "data_images",
        "test_images",
        "test_errors",
    }
    for name, texts in pages.items():
        assert (name, texts.overlapping()) == (name, [])
        assert (name, texts.outside()) == (name, [])


def test_every_picture_of_results_says_n_and_protocol(pages: dict[str, Texts], tmp_path: Path) -> None:
    draw_everything(tmp_path, CLASSES, LABELS, PROBABILITIES)
    for name, texts in pages.items():
        assert "Research use only, not a medical device." in texts.all
        if name == "training_curves":
            assert "8 epochs in 24 s; the weights of epoch 7 were kept: validation loss 0.1714" in texts.all
        else:
            assert f"n = {COUNT}" in texts.all
            assert name == "data_images" or PROTOCOL in texts.all


def test_epochs_without_a_score_break_no_line(
    pages: dict[str, Texts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe that keeps its last epoch is scored every fourth: 40 epochs, ten points, one line through them."""
    drawn: dict[Any, list[tuple[list[int], list[float]]]] = {}
    real = matplotlib.axes.Axes.plot

    def plot(axes: matplotlib.axes.Axes, x: list[int], y: list[float], **look: Any) -> Any:
        drawn.setdefault(look.get("label"), []).append((x, y))
        return real(axes, x, y, **look)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    nothing = float("nan")
    history = [
        Epoch(
            epoch=e,
            loss=1,
            accuracy=0.5,
            val_loss=0.4 if e % 4 == 0 else nothing,
            val_accuracy=0.8 if e % 4 == 0 else nothing,
            seconds=1,
        )
        for e in range(1, 41)
    ]
    charts.draw_training_curves(history, 40, title="toy", folder=tmp_path, watched="test")
    assert [(list(x), list(y)) for x, y in drawn["test"]] == [
        (list(range(4, 41, 4)), [0.4] * 10),
        (list(range(4, 41, 4)), [0.8] * 10),
    ]
    texts = pages["training_curves"]
    assert "test loss 0.4000, accuracy 80.0 %." in texts.all and "validation" not in texts.all
    assert "The test part was scored, but not used to choose anything." in texts.all.replace("\n", " ")
    assert texts.overlapping() == [] and texts.outside() == []


def test_a_very_long_protocol_ends_in_an_ellipsis(pages: dict[str, Texts], tmp_path: Path) -> None:
    counts = confusion(LABELS, PROBABILITIES, CLASSES)
    charts.draw_confusion(counts, CLASSES, title="t", folder=tmp_path, protocol="a word " * 200)
    texts = pages["confusion_matrix"]
    assert texts.overlapping() == [] and texts.outside() == [] and "…" in texts.all


def test_counts_and_row_percentages_stand_in_the_matrix(pages: dict[str, Texts], tmp_path: Path) -> None:
    counts = np.array([[39, 1], [0, 7]])
    charts.draw_confusion(counts, ("no", "yes"), title="toy", folder=tmp_path)
    shown = [text for text, _ in pages["confusion_matrix"].boxes]
    assert {"39", "1", "0", "7", "97.5 %", "2.5 %", "0 %", "100 %"} <= set(shown)
    assert "n = 47 images, 46 right (97.9 %)." in pages["confusion_matrix"].all


def test_the_table_holds_the_metrics_and_their_intervals(pages: dict[str, Texts], tmp_path: Path) -> None:
    metrics = headline(LABELS, PROBABILITIES, CLASSES, protocol=PROTOCOL, resamples=50)
    charts.draw_class_table(metrics, CLASSES, title="toy", folder=tmp_path, protocol=PROTOCOL)
    texts = pages["class_table"].all
    for metric in metrics:
        if metric.metric in ("sensitivity", "specificity", "precision", "f1", "auroc") and metric.class_ != "weighted":
            assert f"{metric.value:.3f}" in texts
            if metric.low is not None:
                assert f"{metric.low:.3f}–{metric.high:.3f}" in texts


def test_of_many_classes_the_table_keeps_the_worst(pages: dict[str, Texts], tmp_path: Path) -> None:
    labels = np.arange(300) % 30
    probabilities = scores(labels, 30, wrong=0)
    probabilities[labels == 17] = np.eye(30, dtype=np.float32)[3]
    metrics = headline(labels, probabilities, MANY, resamples=5)
    charts.draw_class_table(metrics, MANY, title="toy", folder=tmp_path)
    texts = pages["class_table"].all
    assert "class 17" in texts and "The 14 of 30 classes with the lowest F1." in texts


def test_reliability_gives_error_and_counts_of_every_bin(pages: dict[str, Texts], tmp_path: Path) -> None:
    probabilities = np.array([[0.95, 0.05]] * 23 + [[0.55, 0.45]] * 17, dtype=np.float32)
    labels = np.array([0] * 20 + [1] * 3 + [0] * 7 + [1] * 10)
    charts.draw_reliability(labels, probabilities, ("a", "b"), title="toy", folder=tmp_path)
    texts = pages["reliability"]
    error = 23 / 40 * abs(20 / 23 - 0.95) + 17 / 40 * abs(7 / 17 - 0.55)
    assert f"Expected calibration error {error:.4f}; mean confidence 78.0 %, accuracy 67.5 %." in texts.all
    places = {text: (box.x0 + box.x1) / 2 for text, box in texts.boxes if text in ("23", "17", "0.0", "1.0")}
    assert places["17"] < places["23"]  # each over its own bin


def test_errors_carry_a_cross_and_their_label_and_hits_do_not(pages: dict[str, Texts], tmp_path: Path) -> None:
    labels, probabilities = LABELS[:10], PROBABILITIES[:10]
    slices.draw_test_images(predicted(PIXELS[:10], labels, probabilities), "toy", tmp_path)
    shown = [text for text, _ in pages["test_images"].boxes]
    crosses = [text for text in shown if text.startswith("✗")]
    assert len(crosses) == 5 and sum(text.startswith("✓") for text in shown) == 5
    for place in range(5):
        assert f"✗ {100 * probabilities[place].max():.1f} %" in crosses
        assert f"is {CLASSES[labels[place]].replace('_', ' ')}" in shown
    assert sum(text.startswith("is ") for text in shown) == 5
    assert "5 of these and 5 of all (50.0 %) are wrong." in pages["test_images"].all.replace("\n", " ")


def test_the_most_confident_errors_come_first(pages: dict[str, Texts], tmp_path: Path) -> None:
    slices.draw_test_errors(predicted(PIXELS, LABELS, PROBABILITIES), "toy", tmp_path)
    given = [float(text[2:-2]) for text, _ in pages["test_errors"].boxes if text.startswith("✗")]
    assert len(given) == 5 and given == sorted(given, reverse=True)


def test_where_nothing_is_wrong_no_picture_of_errors_is_left(tmp_path: Path) -> None:
    (tmp_path / "test_errors.png").touch()
    right = scores(wrong=0)
    assert slices.draw_test_errors(predicted(PIXELS, LABELS, right), "toy", tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_files_are_whole_fit_the_screen_and_are_the_same_again(tmp_path: Path) -> None:
    counts = confusion(LABELS, PROBABILITIES, CLASSES)
    contents = []
    for name in ("first", "second"):
        png, svg = charts.draw_confusion(counts, CLASSES, title="toy", folder=tmp_path / name, protocol=PROTOCOL)
        image = cv2.imread(str(png))
        assert image is not None and image.shape == (1200, 1920, 3)  # 1280 x 800 at one and a half times the dots
        assert "</svg>" in svg.read_text()
        contents.append((png.read_bytes(), re.sub(r"<dc:date>.*", "", svg.read_text())))
    assert contents[0] == contents[1]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "confusion_matrix.png",
        "confusion_matrix.svg",
    ]


def test_slices_are_drawn_as_they_are(tmp_path: Path) -> None:
    """Grey stays grey and the frame is there for errors only: count pixels of its colour."""
    labels, probabilities = LABELS[:4], scores(LABELS[:4], wrong=1)
    png, _ = slices.draw_test_images(predicted(PIXELS[:4], labels, probabilities), "toy", tmp_path)
    image = cv2.imread(str(png))
    assert image is not None
    blue, green, red = image.astype(int).transpose(2, 0, 1)
    framed = (abs(red - 0xD5) < 3) & (abs(green - 0x5E) < 3) & (blue < 3)
    columns = np.flatnonzero(framed.sum(axis=0) > 200)
    assert len(columns) and np.ptp(columns) < 450  # two upright lines of one tile
    dark = (red == green) & (green == blue) & (red < 30)
    assert dark.sum() > 4 * 20_000  # the slices' background


def test_pyplot_is_never_loaded() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np, pathlib, tempfile; from mribatch.training.figures.charts import draw_confusion; "
        "draw_confusion(np.eye(2, dtype=int), ('a', 'b'), title='t', folder=pathlib.Path(tempfile.mkdtemp())); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("count", "words"), [(1, 0), (2, 0), (7, 1.2), (21, 1.64), (36, 1.2), (60, 0), (200, 0)])
def test_tiles_fit_and_do_not_overlap(count: int, words: float) -> None:
    width, height, caption = 12.2, 6.3, 0.3
    grid = lay_out_tiles(count, width, height, caption=caption, words=words)
    assert grid.side > 0.1 and grid.columns * grid.rows >= count > (grid.rows - 1) * grid.columns
    corners = np.array([grid.corner(place) for place in range(count)])
    assert corners.min() >= 0
    assert (corners + max(grid.side, words)).max(axis=0)[0] <= width + 1e-6
    assert corners[:, 1].max() + grid.side + caption <= height + 1e-6
    assert grid.across >= max(grid.side, words) and grid.down >= grid.side + caption


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (1.0, "100 %"), (0.99999, "99.9 %"), (1e-6, "0.1 %"), (0.9816, "98.2 %")]
)
def test_only_all_and_nothing_are_called_so(share: float, text: str) -> None:
    assert format_percent(share) == text


def test_one_epoch_has_one_tick_and_is_no_plural(pages: dict[str, Texts], tmp_path: Path) -> None:
    history = [Epoch(epoch=1, loss=1.4, accuracy=0.3, val_loss=1.5, val_accuracy=0.2, seconds=4.0)]
    charts.draw_training_curves(history, 1, title="my-model: training", folder=tmp_path)
    texts = pages["training_curves"].all
    assert "1 epoch in 4 s" in texts and "my-model: training" in texts
    assert "0.96" not in texts and "1.04" not in texts

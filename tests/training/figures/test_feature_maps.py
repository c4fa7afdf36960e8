"""Feature maps are the layers' own outputs, of every convolution, wherever it lies; the pictures show them."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'train'")

import cv2
import keras

from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import draw_slice
from mribatch.training.figures.feature_maps import (
    CHANNELS_AT_MOST,
    LAYERS_AT_MOST,
    LayerMaps,
    draw_layer,
    draw_overview,
    draw_sheets,
    record_maps,
)
from mribatch.training.figures.features import FeatureOptions, draw_features, read_slice
from tests.training.drawn_texts import Texts, drawn_pages  # noqa: F401  (the fixture `pages`)
from tests.training.keras_models import SIDE, rescaling, saved, small

layers = keras.layers
INPUTS = np.random.default_rng(0).uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32)


def every_kind() -> keras.Model:
    """Each kind of convolution, one in a model inside, one called twice, one with a single pixel as its output."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIDE, SIDE, 3))
    inner = keras.Sequential(
        [keras.Input((SIDE, SIDE, 4)), layers.DepthwiseConv2D(3, padding="same", name="depthwise")], name="inner"
    )
    features = layers.Conv2D(4, (3, 5), padding="same", activation="relu", name="plain")(pixels)
    features = inner(features)
    twice = layers.SeparableConv2D(4, 3, padding="same", name="twice")
    features = twice(twice(features))
    squeezed = layers.Conv2D(4, 1, name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(features))
    features = layers.Multiply()([features, squeezed])
    features = layers.Conv2DTranspose(2, 3, strides=2, name="up")(features)
    return keras.Model(pixels, layers.Dense(3, activation="softmax")(layers.Flatten()(features)))


def test_every_convolution_is_recorded_in_order_and_single_pixels_are_not() -> None:
    recorded = record_maps(every_kind(), INPUTS)
    assert [(layer.name, layer.kind, layer.shape) for layer in recorded] == [
        ("plain", "Conv2D 3x5", (SIDE, SIDE, 4)),
        ("inner/depthwise", "DepthwiseConv2D 3x3", (SIDE, SIDE, 4)),
        ("twice", "SeparableConv2D 3x3", (SIDE, SIDE, 4)),
        ("twice", "SeparableConv2D 3x3", (SIDE, SIDE, 4)),
        ("up", "Conv2DTranspose 3x3", (2 * SIDE + 1, 2 * SIDE + 1, 2)),
    ]


def test_the_maps_are_what_a_model_of_the_inner_output_gives() -> None:
    model = every_kind()
    inner = keras.Model(model.input, [model.get_layer("plain").output, model.get_layer("up").output])
    recorded = record_maps(model, INPUTS)
    for layer, expected in zip((recorded[0], recorded[-1]), inner.predict(INPUTS, verbose=0), strict=True):
        assert np.abs(layer.maps - expected[0]).max() < 1e-5 and np.ptp(layer.maps) > 0
        assert np.abs(layer.strength - np.abs(expected[0]).mean(axis=2)).max() < 1e-5


def test_the_model_is_left_as_it_was() -> None:
    model = every_kind()
    before = model.predict(INPUTS, verbose=0)
    record_maps(model, INPUTS)
    assert (model.predict(INPUTS, verbose=0) == before).all()
    assert all("call" not in vars(layer) for layer in model.layers)


def test_many_channels_are_thinned_evenly_and_constant_ones_counted() -> None:
    pixels = keras.Input((SIDE, SIDE, 1))
    wide = layers.Conv2D(200, 3, activation="relu", name="wide")
    model = keras.Model(pixels, wide(pixels))
    kernel, bias = np.zeros((3, 3, 1, 200), np.float32), np.zeros(200, np.float32)
    kernel[1, 1, 0, :150] = np.arange(1, 151)
    wide.set_weights([kernel, bias])
    (layer,) = record_maps(model, INPUTS[..., :1])
    assert layer.shape == (SIDE - 2, SIDE - 2, 200) and layer.constant == 50
    assert len(layer.channels) == CHANNELS_AT_MOST and layer.channels[0] == 0 and layer.channels[-1] == 199
    assert set(np.diff(layer.channels)) <= {3, 4}
    for place, channel in enumerate(layer.channels):
        factor = channel + 1 if channel < 150 else 0
        assert np.allclose(layer.maps[:, :, place], INPUTS[0, 1:-1, 1:-1, 0] * factor, rtol=1e-5)


def test_a_model_without_convolutions_is_refused() -> None:
    pixels = keras.Input((SIDE, SIDE, 3))
    with pytest.raises(MribatchError, match="has no two-dimensional convolutional layer"):
        record_maps(keras.Model(pixels, layers.Dense(2)(layers.Flatten()(pixels))), INPUTS)


def maps(channels: int, name: str = "block/layer", side: int = 12) -> LayerMaps:
    random = np.random.default_rng(channels)
    kept = tuple(range(min(channels, CHANNELS_AT_MOST)))
    values = random.normal(size=(side, side, len(kept))).astype(np.float32)
    return LayerMaps(name, "Conv2D 3x3", (side, side, channels), kept, values, np.abs(values).mean(axis=2), 0)


@pytest.mark.parametrize("channels", [1, 7, 32, 60, 1280])
def test_a_sheet_shows_every_kept_channel_by_its_number(channels: int, pages: dict[str, Texts], tmp_path: Path) -> None:
    draw_layer(maps(channels), "toy: block/layer", tmp_path, "sheet")
    texts = pages["sheet"]
    numbers = {text for text, _ in texts.boxes if text.isdigit()}
    assert numbers == {str(channel) for channel in range(min(channels, CHANNELS_AT_MOST))}
    which = f"60 of {channels} channels" if channels > CHANNELS_AT_MOST else f"All {channels} channels"
    assert which in texts.all and "(n = 1)" in texts.all
    assert texts.overlapping() == [] and texts.outside() == []


@pytest.mark.parametrize("count", [1, 5, LAYERS_AT_MOST, 136])
def test_the_overview_names_layers_and_says_how_many_are_left_out(
    count: int, pages: dict[str, Texts], tmp_path: Path
) -> None:
    recorded = [maps(3, f"net/block{place}_with_a_long_name_conv") for place in range(count)]
    draw_overview(recorded, draw_slice(0, 40, 40), "toy", tmp_path)
    texts = pages["features_overview"]
    which = f"all {count}" if count <= LAYERS_AT_MOST else f"{LAYERS_AT_MOST} of {count}, evenly spaced,"
    assert f"{which} convolutional layers" in texts.all
    assert sum(text.startswith("block") for text, _ in texts.boxes) == min(count, LAYERS_AT_MOST)
    assert texts.overlapping() == [] and texts.outside() == []


def test_sheets_are_numbered_in_order_and_safe_to_name(tmp_path: Path) -> None:
    files = [path.name for pair in draw_sheets([maps(2, "a/../b"), maps(2, "c d")], "toy", tmp_path) for path in pair]
    assert files == ["layer_1_a_.._b.png", "layer_1_a_.._b.svg", "layer_2_c_d.png", "layer_2_c_d.svg"]


def test_each_map_uses_the_whole_colour_range_and_a_constant_one_is_grey(tmp_path: Path) -> None:
    ramp = np.linspace(3.0, 3.1, 144, dtype=np.float32).reshape(12, 12)
    values = np.stack([ramp, np.full((12, 12), 7, np.float32)], axis=2)
    layer = LayerMaps("l", "Conv2D 1x1", (12, 12, 2), (0, 1), values, ramp, 1)
    png, _ = draw_layer(layer, "toy", tmp_path, "sheet")
    drawn = cv2.imread(str(png))
    assert drawn is not None
    image = drawn[:, :, ::-1].reshape(-1, 3).astype(int)

    def pixels_near(colour: tuple[int, int, int]) -> int:
        return int((np.abs(image - colour).max(axis=1) <= 3).sum())

    assert pixels_near((0x44, 0x01, 0x54)) > 300 and pixels_near((0xFD, 0xE7, 0x25)) > 300  # both ends of viridis
    assert pixels_near((128, 128, 128)) > 100_000


def test_from_an_image_file_and_a_model_file_to_pictures(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "slice.png"), draw_slice(3, 60, 50))
    model = saved(small(rescaling()), tmp_path / "net.keras")
    lines: list[str] = []
    options = FeatureOptions(image=tmp_path / "slice.png", model=model, out=tmp_path / "out")
    assert draw_features(options, lines.append) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "features_overview.png",
        "features_overview.svg",
        "layer_1_convolution.png",
        "layer_1_convolution.svg",
    ]
    assert lines == ["slice.png through 'small': 1 convolutional layers with maps"]


def test_the_image_is_read_as_classify_reads_it(tmp_path: Path) -> None:
    drawn = draw_slice(3, 60, 50)
    cv2.imwrite(str(tmp_path / "slice.png"), drawn)
    pixels = read_slice(tmp_path / "slice.png", 24, 24)
    assert (pixels[:, :, 0] == cv2.resize(drawn, (24, 24), interpolation=cv2.INTER_LINEAR)).all()


def test_what_is_not_an_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", draw_slice(1, 60, 60))[1].tobytes()[:200])
    for name, problem in (("text.png", "unsupported"), ("cut.png", "truncated"), ("none.png", "No such file")):
        with pytest.raises(MribatchError, match=problem):
            read_slice(tmp_path / name, 24, 24)

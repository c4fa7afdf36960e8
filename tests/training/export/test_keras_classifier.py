"""What is found out about a user's model, what is refused, and that the exported graph is the user's model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

import keras
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import golden_slices
from mribatch.training.data.classes import ClassList
from mribatch.training.export.bundle import BundleFacts, publish_bundle
from mribatch.training.export.declarations import OutputKind, Scale
from mribatch.training.export.keras_classifier import KerasClassifier, inspect_classifier, inspect_input
from mribatch.training.export.outputs import SMALLEST, normalise_sigmoids
from mribatch.training.export.user_model import ExportOptions, ExportResult, export_model
from tests.training import keras_models as models
from tests.training.keras_models import CLASSES, SIDE, rescaling, small, speckled

layers = keras.layers
NAMES = ClassList(("a", "b", "c"))
FOUR = ClassList(("a", "b", "c", "d"))


def refused(
    model: Any, scale: Scale | None = None, outputs: OutputKind | None = None, size: int | None = None, classes: int = 3
) -> MribatchError:
    with pytest.raises(MribatchError) as caught:
        inspect_classifier(model, classes, scale=scale, declared=outputs, size=size)
    assert "\n" not in str(caught.value)
    return caught.value


def inspect(model: Any, declared: OutputKind | None = None, size: int | None = None) -> KerasClassifier:
    return inspect_classifier(model, CLASSES, scale=None, declared=declared, size=size)


def export(model: Any, folder: Path, **changes: Any) -> ExportResult:
    path = models.saved(model, folder / "mine.keras")
    options: dict[str, Any] = {"model": path, "out": folder / "bundle", "classes": NAMES} | changes
    return export_model(ExportOptions(**options), print)


def ask(out: Path, images: np.ndarray) -> np.ndarray:
    bundle = load_bundle(str(out))
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


# What a user would feed the model by hand, from keras.applications' own preprocess_input where it has one.
BY_HAND = {
    Scale.NONE: lambda rgb: rgb,
    Scale.UNIT: lambda rgb: rgb / np.float32(255),
    Scale.SYMMETRIC: lambda rgb: keras.applications.mobilenet_v2.preprocess_input(rgb.copy()),
    Scale.IMAGENET: lambda rgb: keras.applications.densenet.preprocess_input(rgb.copy()),
    Scale.CAFFE: lambda rgb: keras.applications.vgg16.preprocess_input(rgb.copy()),
}


@pytest.mark.parametrize("scale", list(Scale))
def test_the_bundle_gives_what_the_user_would_get_by_hand(scale: Scale, tmp_path: Path) -> None:
    model = small(spread=0.02 if scale in (Scale.NONE, Scale.CAFFE) else 2.0)  # neither drowned nor saturated
    result = export(model, tmp_path, scale=scale)
    images = speckled()
    expected = model.predict(BY_HAND[scale](np.repeat(images.astype(np.float32), 3, axis=3)), verbose=0)
    assert np.abs(ask(result.out, images) - expected).max() < 1e-4
    assert np.ptp(expected, axis=0).max() > 0.01 and result.agreement.rows == 64


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("activation", ["softmax", None])
def test_grey_and_rgb_softmax_and_logits(channels: int, activation: str | None, tmp_path: Path) -> None:
    model = small(rescaling(), channels=channels, activation=activation)
    result = export(model, tmp_path)
    images = speckled()
    given = model.predict(np.repeat(images.astype(np.float32), channels, axis=3), verbose=0)
    expected = given if activation else softmax(given)
    got = ask(result.out, images)
    assert np.abs(got - expected).max() < 1e-4 and np.allclose(got.sum(axis=1), 1, atol=1e-5)
    assert result.facts.model.ends_in == ("probabilities" if activation else "logits")


def test_what_the_bundle_and_its_card_say(tmp_path: Path) -> None:
    result = export(small(rescaling()), tmp_path, name="mine", licence="CC BY 4.0")
    spec = load_bundle(str(result.out)).spec
    assert (spec.name, spec.trained, spec.classes, spec.height, spec.width) == ("mine", True, NAMES.names, SIDE, SIDE)
    assert spec.metrics == () and spec.temperature == 1 and spec.licences["weights"] == "CC BY 4.0"
    assert spec.training["source"] == "a user's own Keras model" and spec.training["file"] == "mine.keras"
    assert spec.training["scaled_by_layers"] == ["rescaling"]
    card = (result.out / "MODEL_CARD.md").read_text()
    for text in (
        "A user's own Keras model",
        "How good it is is not known here",
        "Research use only",
        spec.training["sha256"],
        "grey repeated to three channels, scaled by the model's own rescaling",
        "a, b, c",
        "Weights: CC BY 4.0.",
    ):
        assert text in card


def test_an_image_that_is_not_square(tmp_path: Path) -> None:
    pixels = keras.Input((16, 40, 1))
    features = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(rescaling()(pixels)))
    result = export(keras.Model(pixels, layers.Dense(3, activation="softmax")(features)), tmp_path)
    assert ask(result.out, golden_slices(2, 16, 40)).shape == (2, 3)


def test_a_model_for_any_size_needs_size(tmp_path: Path) -> None:
    model = small(rescaling(), side=None)
    error = refused(model)
    assert "takes images of any size, (any, any, any, 3)" in error.problem and "--size" in error.fix
    assert load_bundle(str(export(model, tmp_path, size=20).out)).spec.height == 20
    assert "the model takes (any, 24, 24, 3), --size says 20" in refused(small(rescaling()), size=20).problem
    assert inspect(small(rescaling()), size=SIDE).pixels.height == SIDE


# ------------------------------------------------------------------------------------------------------------ the range


def test_a_range_that_cannot_be_seen_must_be_declared() -> None:
    error = refused(small())
    assert error.problem == "nothing in the model scales the pixels, so the range that it was trained on is unknown"
    assert "--scale 1/255, -1..1, imagenet, caffe, or none" in error.fix
    assert refused(small(layers.BatchNormalization())).problem == error.problem
    assert refused(small(layers.RandomFlip(), layers.ZeroPadding2D())).problem == error.problem


def normalization() -> Any:
    return layers.Normalization(mean=100.0, variance=2500.0, name="normalization")


@pytest.mark.parametrize("before", [rescaling, normalization])
def test_scaling_inside_is_found_and_not_done_twice(before: Any) -> None:
    model = small(layers.RandomFlip(), before())
    name = model.layers[2].name
    assert inspect_input(model, None, None).scaling_layers == (name,)
    assert inspect_input(model, Scale.NONE, None).scale is Scale.NONE
    error = refused(model, Scale.UNIT)
    assert error.problem == f"the model's own layer '{name}' scales the pixels; --scale 1/255 would scale them twice"
    assert "omit --scale" in error.fix


def test_arithmetic_on_the_input_counts_as_scaling() -> None:
    assert inspect_input(small(lambda x: x / 255.0), None, None).scale is Scale.NONE
    assert "would scale them twice" in refused(small(lambda x: x / 127.5 - 1.0), Scale.SYMMETRIC).problem


def test_scaling_inside_a_model_inside_the_model_is_found() -> None:
    inner = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), rescaling(), layers.Conv2D(3, 3, padding="same")], name="inner"
    )
    assert "'rescaling' scales the pixels" in refused(small(inner), Scale.SYMMETRIC).problem


def test_scaling_after_the_first_weights_is_not_the_inputs() -> None:
    model = small(layers.Conv2D(3, 3, padding="same"), rescaling())
    assert "nothing in the model scales" in refused(model).problem


def test_two_divisions_are_exported_as_trained_and_said(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 127.5, -1, name="second")])
    result = export(small(rescaling(), inner), tmp_path, untrained=True)  # which leaves nothing of the differences
    assert "divides its pixels 2 times ('rescaling', 'second')" in (result.out / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("scale", [Scale.IMAGENET, Scale.CAFFE])
def test_three_channels_scaling_does_not_fit_one_channel(scale: Scale) -> None:
    assert f"--scale {scale} is for three channels" in refused(small(channels=1), scale).problem


# --------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("activation", "after", "kind"),
    [
        (None, lambda: (layers.Softmax(),), OutputKind.PROBABILITIES),
        (None, lambda: (layers.Activation("softmax", dtype="float32"),), OutputKind.PROBABILITIES),
        (
            None,
            lambda: (layers.Dropout(0.5), layers.Activation("softmax"), layers.Reshape((3,))),
            OutputKind.PROBABILITIES,
        ),
        (None, lambda: (keras.ops.softmax,), OutputKind.PROBABILITIES),
        ("softmax", lambda: (layers.Activation("linear"),), OutputKind.PROBABILITIES),
        (
            None,
            lambda: (keras.Sequential([keras.Input((3,)), layers.Dense(3, activation="softmax")]),),
            OutputKind.PROBABILITIES,
        ),
        ("softmax", lambda: (lambda p: layers.Average()([p, p[:, ::-1]]),), OutputKind.PROBABILITIES),
        (None, lambda: (layers.Identity(),), OutputKind.LOGITS),
        (None, lambda: (layers.Dropout(0.5),), OutputKind.LOGITS),
        ("log_softmax", lambda: (), OutputKind.LOGITS),
    ],
)
def test_the_last_activation_decides(activation: str | None, after: Any, kind: OutputKind) -> None:
    model = small(rescaling(), activation=activation, after=after())
    assert inspect(model).ending.kind is kind


def test_what_does_not_say_must_be_declared() -> None:
    model = small(rescaling(), activation=None, after=(layers.BatchNormalization(),))
    error = refused(model)
    assert "whether the model gives probabilities or logits cannot be seen" in error.problem
    assert "give --outputs logits if" in error.fix
    assert inspect(model, OutputKind.LOGITS).ending.kind is OutputKind.LOGITS


def test_a_second_softmax_is_refused() -> None:
    error = refused(small(rescaling()), outputs=OutputKind.LOGITS)
    assert "--outputs logits would add a second softmax" in error.problem and error.fix == "omit --outputs"


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_outputs_that_are_not_probabilities_are_refused(activation: str) -> None:
    for outputs in (None, OutputKind.LOGITS):
        error = refused(small(rescaling(), activation=activation), outputs=outputs)
        assert f"the model ends in '{activation}'" in error.problem and "softmax" in error.fix
        assert ("or give --outputs sigmoid: each output is then divided by their sum" in error.fix) == (
            activation == "sigmoid"
        )


def test_the_last_activation_of_the_right_output_of_an_inner_model_decides() -> None:
    """The inner model gives logits and their softmax; the outer one uses the second."""
    taken = keras.Input((3,))
    logits = layers.Dense(3)(taken)
    inner = keras.Model(taken, [logits, layers.Softmax()(logits)])
    model = small(rescaling(), activation=None, after=(lambda x: inner(x)[1],))
    assert inspect(model).ending.kind is OutputKind.PROBABILITIES
    model = small(rescaling(), activation=None, after=(lambda x: inner(x)[0],))
    assert inspect(model).ending.kind is OutputKind.LOGITS


# -------------------------------------------------------------------------------------------------------------- sigmoids


def reference_cnn() -> Any:
    """A network as the reference project's small one: pixels divided outside, Dense(4, sigmoid) at the end."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((96, 96, 3))])
    for filters, activation in ((16, "elu"), (32, None), (64, "elu"), (128, "elu")):
        model.add(layers.Conv2D(filters, 3, activation=activation))
        if activation:
            model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D(2))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(4, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=3)))
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


def test_sigmoids_are_divided_by_their_sum_on_demand(tmp_path: Path) -> None:
    model = reference_cnn()
    options = {"classes": FOUR, "scale": Scale.UNIT}
    with pytest.raises(MribatchError, match="the model ends in 'sigmoid'.*give --outputs sigmoid"):
        export(model, tmp_path, **options)
    result = export(model, tmp_path, **options, outputs=OutputKind.SIGMOID)
    images = speckled(count=9, side=96)
    sigmoids = model.predict(np.repeat(images.astype(np.float32), 3, axis=3) / np.float32(255), verbose=0)
    assert np.abs(sigmoids.sum(axis=1) - 1).min() > 0.05 and np.ptp(sigmoids, axis=0).max() > 1e-3
    got = ask(result.out, images)
    assert np.abs(got - sigmoids / sigmoids.sum(axis=1, keepdims=True)).max() < 1e-5
    assert (got.argmax(axis=1) == sigmoids.argmax(axis=1)).all() and result.agreement.holds
    loss = keras.losses.categorical_crossentropy(np.eye(4, dtype=np.float32)[[1] * 9], sigmoids)
    assert np.allclose(loss, -np.log(got[:, 1]), rtol=1e-4)  # the very loss that such a fit lowers


def test_the_bundle_says_that_its_probabilities_were_sigmoids(tmp_path: Path) -> None:
    result = export(small(rescaling(), activation="sigmoid"), tmp_path, outputs=OutputKind.SIGMOID)
    activation = "sigmoid divided by the sum of all sigmoids"
    content = json.loads((result.out / "bundle.json").read_text())
    assert content["output"]["activation"] == activation and content["training"]["ends_in"] == "sigmoid"
    assert content["training"]["probabilities"] == activation == result.facts.model.probabilities
    assert content["description"].endswith("weights; its sigmoids are divided by their sum")
    card = (result.out / "MODEL_CARD.md").read_text()
    assert "the model ends in sigmoids, each of which the graph divides by their sum." in card
    assert "p_i / (p_1 + … + p_k)" in card and "They say how the classes compare" in card
    other = export(small(rescaling()), tmp_path, out=tmp_path / "softmax")
    assert json.loads((other.out / "bundle.json").read_text())["output"]["activation"] == "softmax"
    assert "sigmoid" not in (other.out / "MODEL_CARD.md").read_text()


def test_sigmoids_that_underflow_are_not_divided_by_zero(tmp_path: Path) -> None:
    model = small(rescaling(), activation="sigmoid")
    model.get_layer("last").bias.assign(np.full(3, -1000, np.float32))
    result = export(model, tmp_path, outputs=OutputKind.SIGMOID, untrained=True)
    assert (model.predict(np.zeros((1, SIDE, SIDE, 3)), verbose=0) == 0).all()
    assert np.allclose(ask(result.out, speckled()), 1 / 3)


@settings(deadline=None)
@given(arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)))
def test_normalised_sigmoids_are_probabilities_in_the_same_order(sigmoids: np.ndarray) -> None:
    got = normalise_sigmoids(sigmoids)
    assert got.dtype == np.float32 and np.abs(got.sum(axis=1) - 1).max() < 1e-6
    for row, given_row in zip(got, np.maximum(sigmoids, SMALLEST), strict=True):
        assert (np.diff(row[np.argsort(given_row, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    ("activation", "after", "problem"),
    [
        ("softmax", lambda: (), "the model ends in 'softmax', --outputs says sigmoid"),
        (None, lambda: (), "the model ends in 'linear', --outputs says sigmoid"),
        (
            "softmax",
            lambda: (lambda p: layers.Average()([p, p[:, ::-1]]),),
            "add up to 1 already, --outputs says sigmoid",
        ),
        (None, lambda: (layers.BatchNormalization(),), "--outputs says sigmoid, which is 0 to 1"),
    ],
)
def test_what_is_no_sigmoid_is_not_taken_for_one(activation: str | None, after: Any, problem: str) -> None:
    model = small(rescaling(), activation=activation, after=after())
    assert problem in refused(model, outputs=OutputKind.SIGMOID).problem


def test_sigmoids_behind_a_last_step_that_does_not_say_are_taken_on_demand() -> None:
    model = small(rescaling(), activation="sigmoid", after=(lambda p: layers.Average()([p, p[:, ::-1]]),))
    assert inspect(model, OutputKind.SIGMOID).ending.kind is OutputKind.SIGMOID


def test_a_softmax_over_the_wrong_axis_is_refused() -> None:
    model = small(rescaling(), activation=None, after=(layers.Softmax(axis=0),))
    assert "its outputs add up to" in refused(model).problem


def test_weights_that_are_not_finite_are_refused() -> None:
    model = small(rescaling())
    model.get_layer("last").kernel.assign(np.full((6, 3), np.nan, np.float32))
    assert "gives NaN or infinity" in refused(model).problem


# ------------------------------------------------------------------------------------------------------ shape and classes


def test_the_number_of_classes_must_fit() -> None:
    error = refused(small(rescaling()), classes=4)
    assert error.problem == "the model gives 3 numbers per image, --classes names 4" and "in the order" in error.fix


def one_output(activation: str | None) -> Any:
    pixels = keras.Input((SIDE, SIDE, 3))
    wide = keras.initializers.RandomNormal(stddev=0.1, seed=1)
    one = layers.Dense(1, activation=activation, kernel_initializer=wide)(layers.Flatten()(rescaling()(pixels)))
    return keras.Model(pixels, one)


def test_one_sigmoid_is_the_second_of_two_classes(tmp_path: Path) -> None:
    """label_mode="binary" and class_mode="binary" number folders in alphabetical order: 1 is the second."""
    model = one_output("sigmoid")
    result = export(model, tmp_path, classes=ClassList(("healthy", "tumor")))
    images = speckled()
    positive = model.predict(np.repeat(images.astype(np.float32), 3, axis=3), verbose=0)
    assert np.abs(ask(result.out, images) - np.hstack([1 - positive, positive])).max() < 1e-5
    assert np.ptp(positive) > 0.01 and result.facts.model.ends_in == "one sigmoid"
    assert "one sigmoid p; the graph gives 1 - p and p, for healthy and tumor in this order" in (
        (result.out / "MODEL_CARD.md").read_text()
    )
    error = refused(model, classes=3)
    assert "gives 1 numbers per image" in error.problem and "name two classes" in error.fix


def test_one_logit_is_taken_on_demand(tmp_path: Path) -> None:
    model = one_output(None)
    assert "--outputs logits" in refused(model, classes=2).fix
    result = export(model, tmp_path, classes=ClassList(("a", "b")), outputs=OutputKind.LOGITS)
    images = speckled()
    logit = model.predict(np.repeat(images.astype(np.float32), 3, axis=3), verbose=0)
    assert np.abs(ask(result.out, images)[:, 1:] - 1 / (1 + np.exp(-logit))).max() < 1e-5
    assert "which is not a probability of the second class" in refused(one_output("tanh"), classes=2).problem
    assert "would add a second one" in refused(one_output("sigmoid"), outputs=OutputKind.LOGITS, classes=2).problem


def test_a_model_that_was_trained_on_images_scaled_twice_is_exported_on_demand(tmp_path: Path) -> None:
    model = small(rescaling(), spread=500.0)
    assert "add --scale-twice" in refused(model, Scale.UNIT).fix
    result = export(model, tmp_path, scale=Scale.UNIT, scale_twice=True)
    images = speckled()
    expected = model.predict(np.repeat(images.astype(np.float32), 3, axis=3) / np.float32(255), verbose=0)
    assert np.abs(ask(result.out, images) - expected).max() < 1e-4 and np.ptp(expected, axis=0).max() > 0.01
    assert "the pixels are scaled twice" in (result.out / "MODEL_CARD.md").read_text()
    with pytest.raises(MribatchError, match="--scale-twice is for a model"):
        inspect_input(small(), Scale.UNIT, None, scale_twice=True)


def adapted(axis: Any) -> Any:
    layer = layers.Normalization(axis=axis)
    layer.adapt(np.random.default_rng(0).uniform(0, 255, (20, SIDE, SIDE, 3)).astype(np.float32))
    return layer


def behind(*more: Any) -> Any:
    """Layers behind a convolution."""
    return small(rescaling(), layers.Conv2D(6, 3, padding="same"), *more)


# Each failed once: captured constants, no operator for it, a call that XLA should compile, a count of random numbers.
OF_KERAS = {
    "Normalization": lambda: small(adapted(-1)),
    "Normalization, axis None": lambda: small(adapted(None)),
    "exact GELU": lambda: behind(layers.Activation("gelu")),
    "grouped convolution": lambda: behind(layers.Conv2D(6, 3, groups=3)),
    "transposed, output_padding": lambda: behind(layers.Conv2DTranspose(6, 3, strides=2, output_padding=1)),
    "random layers": lambda: small(rescaling(), layers.RandomHue(0.2, (0, 1)), layers.RandomGrayscale()),
    "Resizing, bicubic": lambda: small(layers.Resizing(31, 17, interpolation="bicubic"), rescaling()),
    "Resizing, lanczos3": lambda: small(layers.Resizing(31, 17, interpolation="lanczos3"), rescaling()),
    "Resizing, area": lambda: small(layers.Resizing(17, 15, interpolation="area"), rescaling()),
    "Resizing, nearest": lambda: small(layers.Resizing(31, 17, interpolation="nearest"), rescaling()),
    "Resizing, antialias": lambda: small(layers.Resizing(16, 20, antialias=True), rescaling()),
    "Resizing, padded": lambda: small(layers.Resizing(16, 20, pad_to_aspect_ratio=True), rescaling()),
    "Discretization": lambda: small(layers.Discretization([50.0, 99.0]), layers.Rescaling(1.0), spread=9.0),
    "GRU": lambda: small(
        rescaling(), layers.Reshape((24, 72)), layers.GRU(9, return_sequences=True), layers.Reshape((24, 9, 1))
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "GRU" else name for name in OF_KERAS]
)
def test_layers_of_keras_export_as_they_answer(name: str, tmp_path: Path) -> None:
    model = OF_KERAS[name]()
    result = export(model, tmp_path, untrained=name == "Discretization")
    images = speckled()
    expected = model.predict(np.repeat(images.astype(np.float32), 3, axis=3), verbose=0)
    assert np.abs(ask(result.out, images) - expected).max() < 1e-4


@pytest.mark.slow
def test_private_layers_of_applications_are_keras_own(tmp_path: Path) -> None:
    """LayerScale of ConvNeXt; with the 1e-6 that it starts with, it would hardly count."""
    made = convnext()
    for variable in made.weights:
        if "gamma" in variable.path:
            variable.assign(np.random.default_rng(0).uniform(0.5, 1.5, variable.shape))
    wide = keras.initializers.RandomNormal(stddev=3.0, seed=1)
    model = keras.Model(made.input, layers.Dense(3, activation="softmax", kernel_initializer=wide)(made.output))
    assert any(type(layer).__name__ == "LayerScale" for layer in made.layers)
    assert export(model, tmp_path).agreement.holds


def convnext() -> Any:
    """A small ConvNeXt, by the function of Keras that builds its large ones."""
    from keras.src.applications.convnext import ConvNeXt

    sizes = {"depths": [1, 1, 1, 1], "projection_dims": [8, 8, 8, 8]}
    return ConvNeXt(**sizes, include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", name="small")


def test_what_is_no_classifier_of_single_images_is_refused() -> None:
    first, second = keras.Input((SIDE, SIDE, 3)), keras.Input((4,))

    def dense(features: Any) -> Any:
        return layers.Dense(3, activation="softmax")(features)

    flat = layers.Flatten()(rescaling()(first))
    assert (
        "takes 2 inputs" in refused(keras.Model([first, second], dense(layers.Concatenate()([flat, second])))).problem
    )
    assert "takes (any, 4), not images" in refused(keras.Model(second, dense(second))).problem
    four = keras.Input((SIDE, SIDE, 4))
    assert "not 1 or 3 channels" in refused(keras.Model(four, dense(layers.Flatten()(four)))).problem
    channels_first = keras.Input((3, SIDE, SIDE))
    assert "(channels first)" in refused(keras.Model(channels_first, dense(layers.Flatten()(channels_first)))).problem
    maps = keras.Model(first, layers.Conv2D(3, 3)(rescaling()(first)))
    assert "gives 1 outputs, the first of shape (any, 22, 22, 3)" in refused(maps).problem
    assert "gives 2 outputs" in refused(keras.Model(first, [dense(flat), flat])).problem


def test_half_precision_is_refused_with_the_way_out() -> None:
    model = small(rescaling(), layers.Conv2D(3, 3, dtype="mixed_float16", name="half"))
    error = refused(model)
    assert "'half' computes in float16" in error.problem and "set_dtype_policy('float32')" in error.fix


# ------------------------------------------------------------------------------------------------------------- the folder


def test_a_folder_is_replaced_only_when_asked_and_only_a_bundle(tmp_path: Path) -> None:
    model = small(rescaling())
    out = export(model, tmp_path).out
    first = load_bundle(str(out)).sha256
    with pytest.raises(MribatchError, match="already holds a bundle"):
        export(model, tmp_path)
    other = small(rescaling(), seed=2)
    assert load_bundle(str(export(other, tmp_path, overwrite=True).out)).sha256 != first
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "x.tex").touch()
    with pytest.raises(MribatchError, match="exists and is not a model bundle"):
        export(model, tmp_path, out=tmp_path / "thesis", overwrite=True)


def test_a_graph_that_disagrees_never_becomes_a_bundle(tmp_path: Path) -> None:
    right = inspect(small(rescaling())).to_source()
    wrong = replace(right, graph=lambda images: right.graph(images)[:, ::-1])
    with pytest.raises(MribatchError, match="does not give the probabilities of Keras"):
        publish_bundle(wrong, BundleFacts(name="mine", classes=NAMES), "", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_operators_that_onnx_does_not_know_are_refused(tmp_path: Path) -> None:
    model = small(rescaling(), lambda x: keras.ops.real(keras.ops.ifft2(keras.ops.fft2((x, 0 * x)))[0]))
    with pytest.raises(MribatchError, match="cannot be written as a graph of standard ONNX operators") as caught:
        export(model, tmp_path)
    assert "\n" not in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["mine.keras"]


@pytest.mark.parametrize("changes", [{"name": "my model"}, {"classes": ClassList(("a", "b c", "d"))}])
def test_names_are_checked_before_the_model_is_loaded(changes: dict[str, Any], tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": tmp_path / "none.keras", "out": tmp_path / "o", "classes": NAMES}
    options = ExportOptions(**given | changes)
    with pytest.raises(MribatchError, match="letters, digits"):
        export_model(options, print)


# ------------------------------------------------------------------------------------------------------ keras.applications


def application(name: str, side: int, **options: Any) -> Any:
    """A network of keras.applications with random weights under the reference's head.

    The running statistics are those of a batch: with fresh ones, every image would get the same answer.
    """
    keras.utils.set_random_seed(0)
    base = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(side, side, 3), pooling="max", **options
    )
    head = layers.Dropout(0.5)(layers.BatchNormalization()(base.output))
    model = keras.Model(base.input, layers.Dense(4, activation="softmax")(head))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    images = np.concatenate([golden_slices(12, side, side), speckled(seed=1, count=4, side=side)])
    model(np.repeat(images.astype(np.float32), 3, axis=3), training=True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB2", "EfficientNetB3", "EfficientNetB6"])
def test_efficientnets_agree_and_refuse_a_second_scaling(name: str, tmp_path: Path) -> None:
    model = application(name, 64)
    assert "'rescaling" in refused(model, Scale.UNIT, classes=4).problem
    result = export(model, tmp_path, classes=FOUR)
    assert result.agreement.max_difference <= 1e-4 and result.agreement.flips == 0
    images = speckled(side=64)
    expected = model.predict(np.repeat(images.astype(np.float32), 3, axis=3), verbose=0)
    assert np.abs(ask(result.out, images) - expected).max() <= 1e-4
    assert np.ptp(load_bundle(str(result.out)).golden.probabilities, axis=0).max() > 0.05


@pytest.mark.slow
def test_a_network_without_scaling_inside_agrees_once_it_is_declared(tmp_path: Path) -> None:
    model = application("MobileNetV2", 64)
    assert "nothing in the model scales" in refused(model, classes=4).problem
    result = export(model, tmp_path, classes=FOUR, scale=Scale.SYMMETRIC)
    assert result.agreement.max_difference <= 1e-4

"""All of keras.applications, and Keras' layers for images with their options, as small classifiers.

Weights are random, statistics are those of synthetic slices, and the head is scaled by what the features do on them, so
that the answers vary from slice to slice and the comparison is worth something.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.what_exports.case import Case
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.golden import draw_patterns

CLASSES = 4
SIDE = 24
_LOGIT_SPREAD = 1.5
# Deep networks with random weights give every image nearly the same features. A head that makes much of the little that
# differs makes as much of the rounding.
DEEP_LOGIT_SPREAD = 0.15
Layer = Callable[[Any], Any]

_SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
_SKIPPED = {
    "ConvNeXtXLarge": "1.4 GB of weights; the layers are those of ConvNeXtTiny",
    "ConvNeXtLarge": "0.8 GB of weights; the layers are those of ConvNeXtTiny",
}
_PREPARED_INSIDE = ("EfficientNet", "ConvNeXt", "MobileNetV3")


def keras_cases() -> Iterator[Case]:
    """Yield every case, applications last because they take longest."""
    for group, named in _layers().items():
        for name, layer in named.items():
            yield Case(group=group, name=name, build=partial(_around, layer, group))
    yield from _whole_models()
    yield from _applications()


def _applications() -> Iterator[Case]:
    import keras

    for name in sorted(name for name in dir(keras.applications) if name[0].isupper()):
        yield Case(
            group="keras.applications",
            name=name,
            build=partial(build_application, name),
            skipped=_SKIPPED.get(name, ""),
        )


def build_application(name: str, spread: float = DEEP_LOGIT_SPREAD) -> Any:
    """Build a network of keras.applications as a classifier; `spread` is the deviation of its logits."""
    import keras

    side = _SMALLEST.get(name, 64)
    pixels = keras.Input((side, side, 3))
    prepared = name.startswith(_PREPARED_INSIDE)
    features = pixels if prepared else keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    build = getattr(keras.applications, name)
    base = build(include_top=False, weights=None, input_shape=(side, side, 3), pooling="avg")
    return _finish(pixels, base(features), spread)


def _around(layer: Layer, group: str) -> Any:
    """Put the layer behind a convolution, or before it if it works on pixels."""
    import keras

    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3))
    features = layers.Rescaling(1 / 255)(pixels)
    scales = group == "Preprocessing"
    on_pixels = scales or group.startswith("Augmentation")
    if on_pixels:
        features = layers.Rescaling(1 / 128, name="scaled")(layer(pixels)) if scales else layer(features)
    features = layers.Conv2D(6, 3, strides=2, padding="same", activation="tanh")(features)
    if not on_pixels:
        features = layer(features)
    return _finish(pixels, features)


def _finish(pixels: Any, features: Any, spread: float = _LOGIT_SPREAD) -> Any:
    """Add a head whose logits vary over the golden slices, and give every weight a value worth converting."""
    import keras

    flat = features if len(features.shape) == 2 else keras.layers.Flatten()(features)
    body = keras.Model(pixels, flat)
    _set_weights(body)
    images = _images(pixels.shape[1])
    _set_statistics(body, pixels.shape[1])
    taken = np.concatenate([np.asarray(body(images[i : i + 8], training=False)) for i in range(0, len(images), 8)])
    taken = taken.reshape(len(images), -1).astype(np.float64)
    kernel = np.random.default_rng(0).normal(size=(taken.shape[1], CLASSES))
    logits = taken @ kernel
    deviation = np.maximum(logits.std(axis=0), 1e-12) / spread
    head = keras.layers.Dense(CLASSES, activation="softmax", name="head")
    model = keras.Model(pixels, head(flat))
    head.set_weights([(kernel / deviation).astype("float32"), (-logits.mean(axis=0) / deviation).astype("float32")])
    return model


def _images(side: int) -> Any:
    return np.repeat(golden_slices(24, side, side).astype(np.float32), 3, axis=3)


def _set_weights(model: Any) -> None:
    random = np.random.default_rng(1)
    for variable in model.weights:
        if variable.dtype != "float32":
            continue
        ones = np.ptp(np.asarray(variable)) == 0  # scales, offsets and factors that start all alike
        if ones and "moving" not in variable.path and variable.shape:
            near = 1.0 if any(part in variable.path for part in ("gamma", "scale", "alpha", "variance")) else 0.0
            variable.assign(random.uniform(near - 0.1, near + 0.1, variable.shape))


def _set_statistics(model: Any, side: int) -> None:
    """Take running statistics from slices and patterns: of slices alone, deep networks tell so little apart that a
    normalisation by their variance makes noise of the rounding."""
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    images = np.concatenate([golden_slices(12, side, side), draw_patterns(12, side, side)])
    model(np.repeat(images.astype(np.float32), 3, axis=3), training=True)


def _layers() -> dict[str, dict[str, Layer]]:
    return {
        "Convolution": _convolutions(),
        "Pooling": _poolings(),
        "Normalisation": _normalisations(),
        "Activation": _activations(),
        "Attention": _attentions(),
        "Merging": _merges(),
        "Resizing and shape": _shapes(),
        "Recurrent": _recurrents(),
        "Preprocessing": _preprocessings(),
        "Augmentation (nothing at inference)": _augmentations(),
    }


def _convolutions() -> dict[str, Layer]:
    from keras import layers

    return {
        "Conv2D": layers.Conv2D(8, 3),
        "Conv2D, same, strides": layers.Conv2D(8, (3, 5), strides=2, padding="same"),
        "Conv2D, dilated": layers.Conv2D(8, 3, dilation_rate=2, padding="same"),
        "Conv2D, grouped": layers.Conv2D(8, 3, groups=2),
        "Conv2DTranspose": layers.Conv2DTranspose(8, 3, strides=2, padding="same"),
        "Conv2DTranspose, valid": layers.Conv2DTranspose(8, 3, strides=2, output_padding=1),
        "Conv2DTranspose, dilated": layers.Conv2DTranspose(8, 3, dilation_rate=2),
        "DepthwiseConv2D": layers.DepthwiseConv2D(3, depth_multiplier=2),
        "DepthwiseConv2D, dilated": layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
        "SeparableConv2D": layers.SeparableConv2D(8, 3, strides=2),
        "SpectralNormalization": layers.SpectralNormalization(layers.Conv2D(8, 3)),
        "Conv1D over rows": lambda x: layers.Conv1D(8, 3)(layers.Reshape((12, 72))(x)),
        "SeparableConv1D": lambda x: layers.SeparableConv1D(8, 3)(layers.Reshape((12, 72))(x)),
        "DepthwiseConv1D": lambda x: layers.DepthwiseConv1D(3)(layers.Reshape((12, 72))(x)),
        "Conv1DTranspose": lambda x: layers.Conv1DTranspose(8, 3, strides=2)(layers.Reshape((12, 72))(x)),
        "Conv3D": lambda x: layers.Conv3D(4, 3)(layers.Reshape((12, 12, 6, 1))(x)),
        "Conv3DTranspose": lambda x: layers.Conv3DTranspose(4, 3, strides=2)(layers.Reshape((12, 12, 6, 1))(x)),
        "Dense": layers.Dense(5),
        "EinsumDense": layers.EinsumDense("bhwc,cd->bhwd", output_shape=(12, 12, 5), bias_axes="d"),
    }


def _poolings() -> dict[str, Layer]:
    from keras import layers

    made: dict[str, Layer] = {}
    for kind in ("Max", "Average"):
        pool = getattr(layers, f"{kind}Pooling2D")
        made[f"{kind}Pooling2D"] = pool(2)
        made[f"{kind}Pooling2D, same, overlapping"] = pool(3, strides=2, padding="same")
        made[f"{kind}Pooling2D, strides 1"] = pool((2, 3), strides=1)
        made[f"Global{kind}Pooling2D"] = getattr(layers, f"Global{kind}Pooling2D")()
        made[f"Global{kind}Pooling2D, keepdims"] = getattr(layers, f"Global{kind}Pooling2D")(keepdims=True)
        made[f"Adaptive{kind}Pooling2D, even"] = getattr(layers, f"Adaptive{kind}Pooling2D")(4)
        made[f"Adaptive{kind}Pooling2D, uneven"] = getattr(layers, f"Adaptive{kind}Pooling2D")(5)
        for name in (f"{kind}Pooling1D", f"Global{kind}Pooling1D", f"Adaptive{kind}Pooling1D"):
            size = {f"{kind}Pooling1D": (2,), f"Adaptive{kind}Pooling1D": (3,)}.get(name, ())
            made[name] = partial(_on_rows, getattr(layers, name)(*size))
        for name in (f"{kind}Pooling3D", f"Global{kind}Pooling3D", f"Adaptive{kind}Pooling3D"):
            size = {f"{kind}Pooling3D": (2,), f"Adaptive{kind}Pooling3D": (3,)}.get(name, ())
            made[name] = partial(_on_volume, getattr(layers, name)(*size))
    return made


def _on_rows(layer: Layer, x: Any) -> Any:
    from keras import layers

    return layer(layers.Reshape((36, 24))(x))


def _on_volume(layer: Layer, x: Any) -> Any:
    from keras import layers

    return layer(layers.Reshape((12, 12, 6, 1))(x))


def _normalisations() -> dict[str, Layer]:
    from keras import layers

    return {
        "BatchNormalization": layers.BatchNormalization(),
        "BatchNormalization, no scale, no centre": layers.BatchNormalization(scale=False, center=False),
        "BatchNormalization, axis 1": layers.BatchNormalization(axis=1),
        "LayerNormalization": layers.LayerNormalization(),
        "LayerNormalization, axes 1, 2, 3": layers.LayerNormalization(axis=[1, 2, 3]),
        "GroupNormalization": layers.GroupNormalization(groups=3),
        "GroupNormalization, groups -1 (instance)": layers.GroupNormalization(groups=-1),
        "RMSNormalization": layers.RMSNormalization(),
        "UnitNormalization": layers.UnitNormalization(),
        "Normalization behind a convolution": _adapted(-1, (12, 12, 6)),
    }


def _adapted(axis: Any, shape: tuple[int, ...], **options: Any) -> Any:
    from keras import layers

    layer = layers.Normalization(axis=axis, **options)
    layer.adapt(np.random.default_rng(2).uniform(0, 255 if shape[-1] == 3 else 1, (20, *shape)).astype("float32"))
    return layer


def _activations() -> dict[str, Layer]:
    import keras

    layers = keras.layers
    skipped = (
        "deserialize",
        "get",
        "serialize",
        "glu",
        "threshold",
    )  # glu halves the channels, threshold takes numbers
    names = [name for name in dir(keras.activations) if name[0].islower() and name not in skipped]
    made: dict[str, Layer] = {f"activation {name}": layers.Activation(name) for name in names}
    return made | {
        "ops: glu": lambda x: keras.ops.glu(x),
        "ops: threshold": lambda x: keras.ops.threshold(x, 0.1, 0.0),
        "GELU, tanh approximation": lambda x: keras.ops.gelu(x, approximate=True),
        "LeakyReLU": layers.LeakyReLU(0.2),
        "PReLU": layers.PReLU(),
        "PReLU, shared axes": layers.PReLU(shared_axes=[1, 2]),
        "ELU": layers.ELU(0.7),
        "ReLU, maximum, threshold, slope": layers.ReLU(max_value=0.5, negative_slope=0.1, threshold=0.05),
        "Softmax, axis 1": layers.Softmax(axis=1),
    }


def _attentions() -> dict[str, Layer]:
    from keras import layers

    def tokens(x: Any) -> Any:
        return layers.Reshape((36, 24))(x)

    def itself(layer: Any) -> Layer:
        return lambda x: layer(tokens(x), tokens(x))

    def listed(layer: Any) -> Layer:
        return lambda x: layer([tokens(x), tokens(x)])

    return {
        "MultiHeadAttention": itself(layers.MultiHeadAttention(2, 8)),
        "MultiHeadAttention, causal": lambda x: layers.MultiHeadAttention(2, 8)(
            tokens(x), tokens(x), use_causal_mask=True
        ),
        "MultiHeadAttention, value_dim, output_shape": itself(
            layers.MultiHeadAttention(2, 8, value_dim=6, output_shape=10)
        ),
        "MultiHeadAttention over two axes": lambda x: layers.MultiHeadAttention(2, 4, attention_axes=(1, 2))(x, x),
        "GroupQueryAttention": itself(layers.GroupQueryAttention(8, 4, 2)),
        "Attention": listed(layers.Attention()),
        "Attention, scaled, concat": listed(layers.Attention(use_scale=True, score_mode="concat")),
        "AdditiveAttention": listed(layers.AdditiveAttention()),
        "Squeeze and excitation": _squeeze_and_excite,
        "Vision transformer block": _transformer_block,
    }


def _squeeze_and_excite(x: Any) -> Any:
    from keras import layers

    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(6, 1, activation="hard_sigmoid")(pooled)])


def _transformer_block(x: Any) -> Any:
    from keras import layers

    tokens = layers.Reshape((144, 6))(x)
    normal = layers.LayerNormalization(epsilon=1e-6)(tokens)
    tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, 8, dropout=0.1)(normal, normal)])
    wide = layers.Dense(24, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(tokens))
    return layers.Add()([tokens, layers.Dense(6)(layers.Dropout(0.1)(wide))])


def _merges() -> dict[str, Layer]:
    from keras import layers

    def pair(layer: Any) -> Layer:
        return lambda x: layer([x, layers.Conv2D(6, 1)(x)])

    made: dict[str, Layer] = {
        name: pair(getattr(layers, name)())
        for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    }
    return made | {
        "Concatenate, axis 1": pair(layers.Concatenate(axis=1)),
        "Dot": pair(layers.Dot(axes=3)),
        "Dot, normalized": lambda x: layers.Dot(axes=2, normalize=True)([layers.Reshape((36, 24))(x)] * 2),
    }


def _shapes() -> dict[str, Layer]:
    from keras import layers, ops

    made: dict[str, Layer] = {
        f"UpSampling2D, {method}": layers.UpSampling2D((2, 3), interpolation=method)
        for method in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
    }
    return made | {
        "UpSampling1D": partial(_on_rows, layers.UpSampling1D(2)),
        "UpSampling3D": partial(_on_volume, layers.UpSampling3D(2)),
        "ZeroPadding2D": layers.ZeroPadding2D(((1, 2), (0, 3))),
        "ZeroPadding1D": partial(_on_rows, layers.ZeroPadding1D(2)),
        "ZeroPadding3D": partial(_on_volume, layers.ZeroPadding3D(1)),
        "Cropping2D": layers.Cropping2D(((1, 2), (0, 3))),
        "Cropping1D": partial(_on_rows, layers.Cropping1D(2)),
        "Cropping3D": partial(_on_volume, layers.Cropping3D(1)),
        "Permute": layers.Permute((3, 1, 2)),
        "Reshape": layers.Reshape((-1, 18)),
        "RepeatVector": lambda x: layers.RepeatVector(3)(layers.Flatten()(x)),
        "TimeDistributed": layers.TimeDistributed(layers.Conv1D(4, 3)),
        "Identity, Dropout, GaussianNoise": lambda x: layers.Identity()(
            layers.Dropout(0.5)(layers.GaussianNoise(0.1)(x))
        ),
        "ops: pad reflect": lambda x: ops.pad(x, [[0, 0], [2, 2], [1, 1], [0, 0]], mode="reflect"),
        "ops: depth_to_space by reshape": lambda x: ops.transpose(
            ops.reshape(x[..., :4], (-1, 12, 12, 2, 2)), (0, 1, 3, 2, 4)
        ),
        "ops: split, roll, flip": lambda x: ops.concatenate(
            [ops.flip(ops.roll(p, 2, axis=1), 2) for p in ops.split(x, 2, -1)], -1
        ),
        "ops: mean, var, max over axes": lambda x: ops.concatenate(
            [ops.mean(x, (1, 2)), ops.var(x, (1, 2)), ops.max(x, (1, 2))], -1
        ),
        "ops: image.resize": lambda x: ops.image.resize(x, (20, 18), interpolation="bilinear"),
        "ops: extract_patches": lambda x: ops.image.extract_patches(x, (4, 4)),
    }


def _recurrents() -> dict[str, Layer]:
    from keras import layers

    made: dict[str, Layer] = {
        name: partial(_on_rows, getattr(layers, name)(5)) for name in ("LSTM", "GRU", "SimpleRNN")
    }
    made |= {
        f"{name}, unroll": partial(_on_rows, getattr(layers, name)(5, unroll=True)) for name in ("GRU", "SimpleRNN")
    }
    made["Bidirectional LSTM"] = partial(_on_rows, layers.Bidirectional(layers.LSTM(5, return_sequences=True)))
    made["ConvLSTM2D"] = lambda x: layers.ConvLSTM2D(3, 3)(layers.Reshape((3, 12, 12, 2))(x))
    return made


def _preprocessings() -> dict[str, Layer]:
    from keras import layers

    methods = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area")
    made: dict[str, Layer] = {f"Resizing, {name}": layers.Resizing(16, 20, interpolation=name) for name in methods}
    made |= {f"Resizing up, {name}": layers.Resizing(37, 31, interpolation=name) for name in methods[:3]}
    return made | {
        "Resizing, antialias": layers.Resizing(16, 20, antialias=True),
        "Resizing, crop_to_aspect_ratio": layers.Resizing(16, 20, crop_to_aspect_ratio=True),
        "Resizing, pad_to_aspect_ratio": layers.Resizing(16, 20, pad_to_aspect_ratio=True),
        "CenterCrop": layers.CenterCrop(16, 18),
        "CenterCrop larger than the image": layers.CenterCrop(30, 30),
        "Rescaling": layers.Rescaling(1 / 127.5, offset=-1),
        "Rescaling, per channel": layers.Rescaling([0.01, 0.02, 0.03], offset=[0.1, 0.2, 0.3]),
        "Normalization, mean and variance given": layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
        "Normalization, adapted": _adapted(-1, (SIDE, SIDE, 3)),
        "Normalization, adapted, axis None": _adapted(None, (SIDE, SIDE, 3)),
        "Normalization, adapted, invert": _adapted(-1, (SIDE, SIDE, 3), invert=True),
        "Discretization": lambda x: layers.Rescaling(0.1)(
            layers.Discretization(bin_boundaries=[50.0, 100.0, 150.0])(x)
        ),
        "AutoContrast": layers.AutoContrast(value_range=(0, 255)),
        "Equalization": layers.Equalization(value_range=(0, 255)),
        "ContrastLimitedAdaptiveHistogramEqualization": layers.ContrastLimitedAdaptiveHistogramEqualization((0, 255)),
        "Solarization": layers.Solarization(0.2, 0.4, value_range=(0, 255)),
    }


def _augmentations() -> dict[str, Layer]:
    from keras import layers

    return {
        "RandomBrightness": layers.RandomBrightness(0.2, (0, 1)),
        "RandomContrast": layers.RandomContrast(0.2),
        "RandomFlip": layers.RandomFlip(),
        "RandomRotation": layers.RandomRotation(0.2),
        "RandomTranslation": layers.RandomTranslation(0.2, 0.2),
        "RandomZoom": layers.RandomZoom(0.2),
        "RandomCrop": layers.RandomCrop(16, 16),
        "RandomColorDegeneration": layers.RandomColorDegeneration(0.2, (0, 1)),
        "RandomColorJitter": layers.RandomColorJitter((0, 1), 0.2, 0.2, 0.2, 0.2),
        "RandomElasticTransform": layers.RandomElasticTransform(value_range=(0, 1)),
        "RandomErasing": layers.RandomErasing(value_range=(0, 1)),
        "RandomGaussianBlur": layers.RandomGaussianBlur(value_range=(0, 1)),
        "RandomGrayscale": layers.RandomGrayscale(),
        "RandomHue": layers.RandomHue(0.2, (0, 1)),
        "RandomInvert": layers.RandomInvert(0.2, (0, 1)),
        "RandomPerspective": layers.RandomPerspective(),
        "RandomPosterization": layers.RandomPosterization(4, (0, 1)),
        "RandomSaturation": layers.RandomSaturation(0.2, (0, 1)),
        "RandomSharpness": layers.RandomSharpness(0.2, (0, 1)),
        "RandomShear": layers.RandomShear(0.2, 0.2),
        "RandAugment": layers.RandAugment((0, 1)),
        "AugMix": layers.AugMix((0, 1)),
        "MixUp": layers.MixUp(),
        "CutMix": layers.CutMix(),
        "SpatialDropout2D, AlphaDropout, GaussianDropout": lambda x: layers.SpatialDropout2D(0.2)(
            layers.AlphaDropout(0.2)(layers.GaussianDropout(0.2)(x))
        ),
        "ActivityRegularization": layers.ActivityRegularization(l2=0.1),
    }


def _whole_models() -> Iterator[Case]:
    whole: dict[str, Callable[[], Any]] = {
        "Sequential, 1 channel": partial(_sequential, 1),
        "Sequential, 3 channels": partial(_sequential, 3),
        "Sequential without Input, built by a call": _sequential_without_input,
        "model inside a model": _nested,
        "frozen base with training=False": _frozen_base,
        "float64 head is refused": _float64_head,
    }
    for name, build in whole.items():
        yield Case(group="Whole models", name=name, build=build)


def _sequential(channels: int) -> Any:
    import keras
    from keras import layers

    pixels = keras.Input((SIDE, SIDE, channels))
    body = [layers.Rescaling(1 / 255), layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    wide = keras.initializers.RandomNormal(stddev=0.5)
    return keras.Sequential([pixels, *body, layers.Dense(CLASSES, activation="softmax", kernel_initializer=wide)])


def _sequential_without_input() -> Any:
    import keras
    from keras import layers

    wide = keras.initializers.RandomNormal(stddev=0.5)
    model = keras.Sequential(
        [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(CLASSES, "softmax", kernel_initializer=wide)]
    )
    model.predict(np.zeros((1, SIDE, SIDE, 3), np.float32), verbose=0)
    return model


def _nested() -> Any:
    import keras
    from keras import layers

    pixels = keras.Input((SIDE, SIDE, 3))
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 255), layers.Conv2D(6, 3)])
    return _finish(pixels, inner(pixels))


def _frozen_base() -> Any:
    import keras
    from keras import layers

    pixels = keras.Input((SIDE, SIDE, 3))
    taken = keras.Input((SIDE, SIDE, 3))
    base = keras.Model(taken, layers.BatchNormalization()(layers.Conv2D(6, 3)(taken)))
    base.trainable = False
    return _finish(pixels, base(layers.Rescaling(1 / 255)(pixels), training=False))


def _float64_head() -> Any:
    import keras
    from keras import layers

    pixels = keras.Input((SIDE, SIDE, 3))
    return keras.Model(
        pixels, layers.Dense(CLASSES, "softmax", dtype="float64")(layers.Flatten()(layers.Rescaling(1 / 255)(pixels)))
    )

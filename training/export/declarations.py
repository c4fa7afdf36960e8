"""What a user declares about a model that cannot be seen in its file; light, so that `--help` can show it."""

from dataclasses import dataclass
from enum import StrEnum


class Scale(StrEnum):
    """How pixels 0..255 are scaled for the model; the modes of keras.applications' preprocess_input."""

    NONE = "none"
    UNIT = "1/255"  # 0..1
    SYMMETRIC = "-1..1"  # "tf": MobileNet, Inception, Xception, ResNetV2
    IMAGENET = "imagenet"  # "torch": 0..1, less ImageNet's mean, by its deviation: DenseNet, torchvision, timm
    CAFFE = "caffe"  # "caffe": blue green red, less ImageNet's mean: VGG, ResNet


@dataclass(frozen=True)
class MeanAndStd:
    """Pixels 0..1, less a mean, by a deviation, as torchvision's Normalize; one number, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean} std {std}"


class OutputKind(StrEnum):
    """What the outputs of a model are."""

    PROBABILITIES = "probabilities"  # used as they are
    LOGITS = "logits"  # the graph adds a softmax
    SIGMOID = "sigmoid"  # the graph divides each by their sum; one alone is the second of two classes


DECLARABLE = (OutputKind.LOGITS, OutputKind.SIGMOID)  # values of --outputs

"""What a user declares about a Keras model that cannot be seen in its file; light, so that `--help` can show it."""

from enum import StrEnum


class Scale(StrEnum):
    """How pixels 0..255 are scaled for the model; the modes of keras.applications' preprocess_input."""

    NONE = "none"
    UNIT = "1/255"  # 0..1
    SYMMETRIC = "-1..1"  # "tf": MobileNet, Inception, Xception, ResNetV2
    IMAGENET = "imagenet"  # "torch": 0..1, less ImageNet's mean, by its deviation: DenseNet
    CAFFE = "caffe"  # "caffe": blue green red, less ImageNet's mean: VGG, ResNet


class OutputKind(StrEnum):
    """What the outputs of a model are."""

    PROBABILITIES = "probabilities"  # used as they are
    LOGITS = "logits"  # the graph adds a softmax
    SIGMOID = "sigmoid"  # the graph divides each by their sum


DECLARABLE = (OutputKind.LOGITS, OutputKind.SIGMOID)  # values of --outputs

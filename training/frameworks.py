"""TensorFlow and Keras, loaded when a command first needs them, set up for bit-for-bit reproducible fits."""

import os
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command


def load_keras() -> tuple[Any, Any]:
    """Import TensorFlow and Keras.

    Returns:
        The modules (tensorflow, keras). Operations are deterministic from here on.

    Raises:
        MribatchError: One is missing, or Keras uses another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides TensorFlow's start-up notes
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow
    except ImportError as error:
        raise MribatchError(f"training needs TensorFlow and Keras ({error})", install_command("train")) from error
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise MribatchError(f"Keras runs on '{backend}', training needs TensorFlow", "unset KERAS_BACKEND")
    tensorflow.get_logger().setLevel("ERROR")  # five folds trace one function five times, which TensorFlow warns of
    tensorflow.config.experimental.enable_op_determinism()
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's golden answers are float32 too
    return tensorflow, keras


def versions() -> dict[str, str]:
    """Return the versions of the libraries that affect the last bits of a fit."""
    import cv2
    import numpy

    tensorflow, keras = load_keras()
    return {
        "tensorflow": tensorflow.__version__,
        "keras": keras.__version__,
        "numpy": numpy.__version__,
        "opencv": cv2.__version__,
    }

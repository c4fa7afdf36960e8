"""TensorFlow and Keras, loaded when a command first needs them, set up so that a fit can be repeated bit for bit."""

import os
from typing import Any

from mribatch.core.errors import MribatchError

_FIX = "pip install 'mribatch[train]'"


def load_keras() -> tuple[Any, Any]:
    """Import TensorFlow and Keras.

    Returns:
        The modules (tensorflow, keras). Operations are deterministic from here on.

    Raises:
        MribatchError: One is missing, or Keras was told to use another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes are no concern of the user's
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow
    except ImportError as error:
        raise MribatchError(f"training needs TensorFlow and Keras ({error})", _FIX) from error
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise MribatchError(f"Keras runs on '{backend}', training needs TensorFlow", "unset KERAS_BACKEND")
    tensorflow.get_logger().setLevel("ERROR")  # five folds trace one function five times; nobody needs to hear of it
    tensorflow.config.experimental.enable_op_determinism()
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's golden answers are float32 too
    return tensorflow, keras


def versions() -> dict[str, str]:
    """Versions of the libraries that decide a fit's last bits."""
    import cv2
    import numpy

    tensorflow, keras = load_keras()
    return {
        "tensorflow": tensorflow.__version__,
        "keras": keras.__version__,
        "numpy": numpy.__version__,
        "opencv": cv2.__version__,
    }

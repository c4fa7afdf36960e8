"""TensorFlow and Keras, loaded when a command first needs them, set up for bit-for-bit reproducible fits."""

import os
import re
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.core.native_stderr import filtering_native_stderr
from mribatch.core.nvidia_driver import has_driver

# Informative lines, and the line that says that they come before the log is set up.
_NOTE = re.compile(r"I\d{4} \d\d:\d\d|WARNING: All log messages before absl::InitializeLog|$")
_NO_GPU = re.compile(r"failed call to cuInit|Could not find cuda drivers|Cannot dlopen some GPU libraries")


def load_keras() -> tuple[Any, Any]:
    """Import TensorFlow and Keras.

    Returns:
        The modules (tensorflow, keras). Operations are deterministic from here on.

    Raises:
        MribatchError: One is missing, or Keras uses another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides TensorFlow's notes once its log is set up
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        with filtering_native_stderr(_is_noise):
            import keras
            import tensorflow

            if not has_driver():
                tensorflow.config.list_physical_devices()  # looks for a GPU, and says at length that there is none
    except ImportError as error:
        raise MribatchError(f"training needs TensorFlow and Keras ({error})", install_command("train")) from error
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise MribatchError(f"Keras runs on '{backend}', training needs TensorFlow", "unset KERAS_BACKEND")
    tensorflow.get_logger().setLevel("ERROR")  # five folds trace one function five times, which TensorFlow warns of
    tensorflow.config.experimental.enable_op_determinism()
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's golden answers are float32 too
    return tensorflow, keras


def _is_noise(line: str) -> bool:
    """Whether TensorFlow says how it was built, or without NVIDIA's driver that there is no GPU."""
    return bool(_NOTE.match(line)) or (not has_driver() and bool(_NO_GPU.search(line)))


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

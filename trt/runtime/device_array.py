"""Images that lie on the GPU already, as the CUDA Array Interface, version 3, describes them.

Source: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html. Earlier versions do not say which stream
writes the array; a reader cannot know when it is complete, so they are refused. Whoever holds such an array (DALI's
TensorGPU has version 2) and knows its stream passes an object that holds it and says version 3 and the stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

ALIGNMENT = 256  # bytes; IExecutionContext::setTensorAddress in NvInferRuntime.h
VERSION = 3
_UINT8 = ("|u1", "<u1", ">u1")  # one byte has no order


class DeviceArray(Protocol):
    """An array on the GPU. Reading the attribute may cost: it is read once for each batch."""

    @property
    def __cuda_array_interface__(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class DeviceImages:
    """One full batch on the GPU.

    Attributes:
        array: Keeps the memory alive for as long as it is referenced.
        address: Of the first pixel.
        stream: The stream that may still be writing, 1 and 2 as in `Stream.wait_for`; None: nothing is.
    """

    array: DeviceArray
    address: int
    stream: int | None


def check_device_images(array: DeviceArray, shape: tuple[int, ...]) -> DeviceImages:
    """Check an array on the GPU: uint8, C-contiguous, and of exactly this shape; give what TensorRT must know of it.

    Raises:
        TypeError: It is not an array on a GPU.
        ValueError: It is another array than that: TensorRT would read other memory, or the same in another order.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise TypeError(f"{type(array).__name__} is neither a NumPy array nor has it __cuda_array_interface__")
    version = interface.get("version")
    if version != VERSION:
        raise ValueError(f"version {version} of the CUDA Array Interface, wanted is {VERSION}, which names the stream")
    found = tuple(interface["shape"])
    if interface["typestr"] not in _UINT8 or found[1:] != shape[1:]:
        raise ValueError(f"{interface['typestr']} {found} on the GPU for uint8 {shape}")
    if found != shape:
        raise ValueError(
            f"{found[0]} images on the GPU, wanted is a full batch of {shape[0]}: pad it, or copy it to "
            "the host, from where any number is taken"
        )
    _, height, width, depth = shape
    contiguous = (height * width * depth, width * depth, depth, 1)
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != contiguous:
        raise ValueError(f"strides {tuple(strides)} on the GPU, wanted is C-contiguous: {contiguous}")
    if interface.get("mask") is not None:
        raise ValueError("a masked array on the GPU: masked pixels have no answer")
    address, stream = interface["data"][0], interface.get("stream")
    if not address or address % ALIGNMENT:
        raise ValueError(f"address {address:#x} on the GPU, TensorRT wants a multiple of {ALIGNMENT}")
    if stream is not None and stream < 1:  # 0 could mean either default stream
        raise ValueError(f"stream {stream}, the CUDA Array Interface allows None, 1, 2 or a handle")
    return DeviceImages(array, address, stream)

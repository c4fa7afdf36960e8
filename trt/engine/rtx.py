"""What TensorRT for RTX has and TensorRT has not: engines for a GPU that is not there."""

from typing import Any

from mribatch.core.errors import MribatchError

TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120")
"""GPUs that engines are built for where none is present: Turing, A100, Ampere, Ada and Blackwell. There is no sm90:
TensorRT for RTX does not run on H100 and H200."""


def set_target(trt: Any, config: Any, target: str) -> None:
    """Build for `target` instead of the GPU that is present.

    Raises:
        MribatchError: This version of TensorRT for RTX builds for other GPUs only; names them.
    """
    members = trt.ComputeCapability.__members__
    if target.upper() not in members:
        known = ", ".join(name.lower() for name in members if name.startswith("SM"))
        raise MribatchError(
            f"TensorRT for RTX {trt.__version__} builds no engine for {target}",
            f"choose one of {known}, or use --flavor tensorrt on that GPU",
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(members[target.upper()], 0):
        raise MribatchError(f"TensorRT for RTX {trt.__version__} refused the target {target}", "update tensorrt-rtx")

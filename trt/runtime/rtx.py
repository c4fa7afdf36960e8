"""How TensorRT for RTX runs an engine: other than TensorRT, it compiles the kernels when a context first runs.

By default a general kernel answers at first, while the one for the shape is compiled in the background; from some batch
on that one answers. So the gate would prove other kernels than those that run, and bits would change during a run. Here
the kernels for the shape are compiled before the first answer, and given back so that the next start need not compile.
Source: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-runtime-cache.html
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EagerContext:
    """context: an IExecutionContext, None where the library refused. kernels: its IRuntimeCache; must outlive it."""

    context: Any
    kernels: Any

    def serialize_kernels(self) -> bytes | None:
        """What was compiled for the shapes that have run; None where there is nothing, which costs time only."""
        content = self.kernels.serialize() if self.kernels is not None else None
        return bytes(content) if content is not None else None


def create_eager_context(engine: Any, kept: bytes | None) -> EagerContext:
    """Make a context of an ICudaEngine that compiles its kernels for each shape before it answers.

    Args:
        engine: Deserialized.
        kept: What `serialize_kernels` gave earlier; the library ignores what another version, driver or GPU compiled.
    """
    config = engine.create_runtime_config()
    strategies = type(config.dynamic_shapes_kernel_specialization_strategy)
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    kernels = config.create_runtime_cache()
    if kernels is not None:
        if kept is not None:
            kernels.deserialize(kept)  # False: it does not fit, and everything is compiled again
        if not config.set_runtime_cache(kernels):
            kernels = None
    return EagerContext(engine.create_execution_context(runtime_config=config), kernels)

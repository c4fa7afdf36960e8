"""The limit on address space (ulimit -v, RLIMIT_AS), looked at before libraries in C++ meet it and crash."""

import contextlib

from mribatch.core.errors import MemoryLimitError

LEAST_BYTES = 1_300_000_000  # PyArrow, OpenCV and ONNX Runtime with two threads; reserved, not used


def check_address_space() -> None:
    """Refuse a limit under which libraries cannot even be loaded: some of them end the process without a word.

    Raises:
        MemoryLimitError: The limit is lower than what one run needs.
    """
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY and limit < LEAST_BYTES:
            raise MemoryLimitError(
                f"the address space of this process is limited to {limit / 1e9:.1f} GB, and {LEAST_BYTES / 1e9:.1f} GB"
                " are needed",
                "raise the limit or remove it (ulimit -v unlimited)",
            )

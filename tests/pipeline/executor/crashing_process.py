"""A process that makes parts, for tests: the project's own, in which chosen files do what damaged files do to decoders.

    python crashing_process.py HOOK REQUESTS REPLIES

HOOK is a function of crashing_worker.py, or the name of one below that looks at the process' GPU.
"""

import os
import sys
from pathlib import Path

from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode import file as decode_file
from mribatch.pipeline.executor import __main__ as process
from mribatch.pipeline.executor import service
from mribatch.pipeline.worker import process as worker_process
from tests.pipeline.worker import crashing_worker


def no_second_gpu() -> None:
    """The second GPU cannot be opened."""
    if os.environ["CUDA_VISIBLE_DEVICES"] == "1":
        raise MribatchError("CUDA says cudaErrorDevicesUnavailable", "check the GPU")


def second_gpu_kills() -> None:
    """The second GPU takes its process along."""
    if os.environ["CUDA_VISIBLE_DEVICES"] == "1":
        os._exit(9)


def no_gpu() -> None:
    raise MribatchError("CUDA says cudaErrorDevicesUnavailable", "check the GPU")


if __name__ == "__main__":
    name = sys.argv[1]
    if name in globals():
        loading = vars(service)["load_bundle"]

        def load(model: str) -> object:
            globals()[name]()
            return loading(model)

        vars(service)["load_bundle"] = load
    else:
        vars(decode_file)["read_and_probe"] = getattr(crashing_worker, name)
        command = (sys.executable, str(Path(crashing_worker.__file__)), name)
        vars(worker_process)["COMMAND"] = command
    process.main(sys.argv[2:])

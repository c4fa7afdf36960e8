"""Public names of TensorRT's Python classes, read out of its own wheels, without a GPU.

    pip download --no-deps tensorrt-cu13-bindings==11.4.0.106
    python -m tests.trt.api.make_listing tensorrt_cu13_bindings-11.4.0.106-*.whl > tests/trt/api/tensorrt-11.4.0.106.json
    python -m tests.trt.api.make_listing tensorrt_rtx > tests/trt/api/tensorrt_rtx-1.7.1.116.json

A bindings wheel is real, but the libraries it wants (libnvinfer and others) come from NVIDIA's own index and want a
driver. Empty stand-ins, compiled here with cc, give the symbols that the loader asks for; nothing is called, only `dir()`.
TensorRT for RTX brings its libraries and is imported as it is installed.
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLASSES = (
    "Builder",
    "BuilderFlag",
    "ComputeCapability",
    "DataType",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInspector",
    "ICudaEngine",
    "IBuilderConfig",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "IRuntimeCache",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
)

_READ = """
import importlib, inspect, json, sys
module = importlib.import_module(sys.argv[1])
names = {name: sorted(n for n in dir(kind) if not n.startswith("_"))
         for name, kind in vars(module).items() if inspect.isclass(kind) and name in sys.argv[2:]}
print(json.dumps(names, indent=1, sort_keys=True))
"""


def listing(source: str) -> str:
    """JSON, class -> public names, of an installed module's or a wheel file's CLASSES."""
    if not source.endswith(".whl"):
        return _read(source, {})
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(source) as wheel:
            wheel.extractall(folder)
        (binary,) = Path(folder).glob("tensorrt_bindings/tensorrt*.so")
        _stand_ins(binary, Path(folder))
        return _read("tensorrt_bindings.tensorrt", {"PYTHONPATH": folder, "LD_LIBRARY_PATH": folder})


def _stand_ins(binary: Path, folder: Path) -> None:
    """One empty library for each of NVIDIA's that `binary` wants; the first has all the symbols."""
    wanted = re.findall(r"\[(libnv[^]]+)\]", _output("readelf", "-d", binary))
    symbols = [line.split()[-1] for line in _output("nm", "-D", "--undefined-only", binary).splitlines()]
    own = [name for name in symbols if "@" not in name and not name.startswith(("_Z", "_ITM", "__", "Py", "_Py"))]
    source = folder / "stand_in.c"
    for number, name in enumerate(wanted):
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in own if number == 0))
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _read(module: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", _READ, module, *CLASSES]
    return subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    print(listing(sys.argv[1]), end="")

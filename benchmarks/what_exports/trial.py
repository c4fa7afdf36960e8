"""Builds and exports the cases named on standard input, one JSON line each: the child of `benchmarks.what_exports`."""

import gc
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.what_exports.case import Case, Outcome
from mribatch.core.errors import MribatchError


def names() -> list[tuple[str, str]]:
    """Return group and name of every case."""
    from benchmarks.what_exports.keras_cases import keras_cases

    return [(case.group, case.name) for case in keras_cases()]


def versions() -> dict[str, str]:
    """Return the versions that the outcomes depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime")}


def try_case(case: Case) -> Outcome:
    """Build, save and export one model."""
    if case.skipped:
        return Outcome(group=case.group, name=case.name, exports=None, remark=f"not tried: {case.skipped}")
    import keras

    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(folder) / "model.keras"
            case.build().save(path)
        except Exception as error:  # Keras' own limits: a layer that cannot be built or saved
            return Outcome(group=case.group, name=case.name, exports=None, remark=f"not built: {_line(error)}")
        keras.backend.clear_session()
        start = time.perf_counter()
        try:
            difference, spread = _export(path, Path(folder) / "bundle")
        except MribatchError as error:
            return Outcome(group=case.group, name=case.name, exports=False, remark=_line(error))
        seconds = round(time.perf_counter() - start, 1)
        return Outcome(
            group=case.group,
            name=case.name,
            exports=True,
            difference=difference,
            spread=spread,
            seconds=seconds,
            remark=case.remark,
        )


def _export(path: Path, out: Path) -> tuple[float, float]:
    from mribatch.core.bundle import load_bundle
    from mribatch.training.data.classes import ClassList
    from mribatch.training.export.user_model import ExportOptions, export_model

    options = ExportOptions(model=path, out=out, classes=ClassList(("a", "b", "c", "d")))
    result = export_model(options, lambda _: None)
    golden: Any = load_bundle(str(out)).golden.probabilities
    return float(f"{result.agreement.max_difference:.2g}"), float(f"{(golden.max(0) - golden.min(0)).max():.2g}")


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:240]


def main() -> None:
    """Try the cases in order."""
    from benchmarks.what_exports.keras_cases import keras_cases

    wanted = {(group, name) for group, name in json.load(sys.stdin)}
    for case in keras_cases():
        if (case.group, case.name) in wanted:
            print(json.dumps(asdict(try_case(case))), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()

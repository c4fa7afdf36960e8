"""Heavy libraries stay where they belong, and training shares only pixels and figures with the rest.

tests/test_rooms.py checks the arrows between the folders and between the rooms of each.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "cli", "pipeline", "report", "trt", "training", "models")
# What training shares with inference, so that both see the same pixels and the same figures.
SHARED_WITH_TRAINING = {
    "pipeline": {"decode", "inference", "listing", "records"},
    "report": {"groups", "metrics"},
}
ONLY_HOME = {
    "tensorflow": {"training"},
    "keras": {"training"},
    "tf2onnx": {"training"},
    "tensorrt": {"trt"},
    "tensorrt_rtx": {"trt"},
    "cuda": {"trt"},
    "nvidia": {"pipeline"},
    "cv2": {"pipeline", "training", "report"},
    "matplotlib": {"training", "report"},
    "jinja2": {"report"},
    "simplejpeg": {"pipeline"},
}
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[str]:
    """The dotted names that a module imports, wherever in it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_at_home(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    for module in imports(path):
        assert home in ONLY_HOME.get(module.split(".")[0], {home}), f"{path}: {module}"


def test_training_shares_pixels_the_cpu_backend_and_figures_only() -> None:
    for path in (ROOT / "training").rglob("*.py"):
        for module in imports(path):
            top, folder, room, *_ = [*module.split("."), "", ""]
            if top == "mribatch" and folder in SHARED_WITH_TRAINING:
                assert room in SHARED_WITH_TRAINING[folder], f"{path}: {module}"


CORE_MAY_LOAD = {"tables.py": {"rich"}}  # inside the function that draws


def test_core_needs_the_standard_library_and_numpy_only() -> None:
    for path in (ROOT / "core").glob("*.py"):
        for module in imports(path):
            top = module.split(".")[0]
            allowed = {"mribatch", "numpy", *CORE_MAY_LOAD.get(path.name, ())}
            assert top in allowed or top in sys.stdlib_module_names, f"{path}: {module}"


def test_the_loop_over_all_stages_is_short() -> None:
    tree = ast.parse((ROOT / "pipeline/executor/part_maker.py").read_text())
    (run,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "make_rows"]
    assert run.end_lineno is not None and run.end_lineno - run.lineno + 1 < 40


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("from mribatch.cli.main import cli\ndef late():\n    import tensorflow as tf\n")
    assert imports(path) == ["mribatch.cli.main.cli", "tensorflow"]


def test_no_two_public_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}

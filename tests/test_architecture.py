"""The arrows between the folders point one way, and heavy libraries stay where they belong."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "cli", "pipeline", "trt", "training", "models")
MAY_IMPORT = {
    "core": {"core"},
    "models": set(),
    "trt": {"trt", "core"},
    "pipeline": {"pipeline", "trt", "core"},
    "training": {"training", "core", "pipeline"},
    "cli": {"cli", "pipeline", "training", "trt", "core"},
}
# What training shares with inference, so that both see the same pixels and the same figures.
PIPELINE_FOR_TRAINING = ("discover", "probe", "decode_opencv", "metrics", "records")
ONLY_HOME = {
    "tensorflow": "training",
    "keras": "training",
    "tf2onnx": "training",
    "tensorrt": "trt",
    "tensorrt_rtx": "trt",
    "cuda": "trt",
    "nvidia": "pipeline",
    "cv2": ("pipeline", "training"),
    "matplotlib": "training",
}
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, ast.AST]]:
    found: list[tuple[str, ast.AST]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", node) for alias in node.names]
    return found


def folder_of(module: str) -> str:
    second = module.split(".")[1] if "." in module else ""
    return second if second in FOLDERS else "core"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    for module, _ in imports(path):
        if module.split(".")[0] != "mribatch":
            continue
        target = folder_of(module)
        assert target in MAY_IMPORT[home], f"{path.name} imports {module}"
        if home == "training" and target == "pipeline":
            assert module.split(".")[2] in PIPELINE_FOR_TRAINING, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_at_home(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    for module, _ in imports(path):
        allowed = ONLY_HOME.get(module.split(".")[0])
        assert allowed is None or home in ([allowed] if isinstance(allowed, str) else allowed), f"{path}: {module}"


def test_core_needs_the_standard_library_and_numpy_only() -> None:
    import sys

    for path in (ROOT / "core").glob("*.py"):
        for module, _ in imports(path):
            top = module.split(".")[0]
            assert top in ("mribatch", "numpy") or top in sys.stdlib_module_names, f"{path}: {module}"


def test_run_is_short() -> None:
    tree = ast.parse((ROOT / "pipeline/run.py").read_text())
    (run,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    assert run.end_lineno is not None and run.end_lineno - run.lineno + 1 < 40


def test_a_wrong_arrow_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("from mribatch.cli.main import cli\nimport tensorflow as tf\n")
    assert [module for module, _ in imports(path)] == ["mribatch.cli.main.cli", "tensorflow"]
    assert folder_of("mribatch.cli.main.cli") == "cli" and folder_of("mribatch.errors.MribatchError") == "core"

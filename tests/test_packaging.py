"""The wheel holds every package and the default model, and works outside the checkout."""

import configparser
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.folders import draw_images

ROOT = Path(__file__).parents[1]
FOLDERS = {"core": "mribatch", "cli": "mribatch/cli", "pipeline": "mribatch/pipeline", "trt": "mribatch/trt",
           "training": "mribatch/training", "models": "mribatch/models"}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.splitlines()  # fmt: skip
    for name in tracked:  # a build in the checkout would leave files behind
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
               "--wheel-dir", str(folder), "./source"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    (path,) = folder.glob("mribatch-*.whl")
    return path


def test_every_module_and_every_model_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in FOLDERS.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        missing = {f"{package}/{path.relative_to(ROOT / folder)}" for path in files} - names
        assert not missing


def test_nothing_but_mribatch_is_installed(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mribatch"}


def test_the_installed_wheel_finds_its_model_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    site = next((environment / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies come from the environment that runs the tests; mribatch itself must not.
    outer = next(path for path in map(Path, sys.path) if (path / "numpy").is_dir())
    (site / "dependencies.pth").write_text(f"{outer}\n")
    draw_images(tmp_path / "data", 3, size=64)
    python = environment / "bin" / "python"
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    where = subprocess.run([python, "-c", "import mribatch; print(mribatch.__file__)"], cwd=tmp_path, env=environ,
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert where.startswith(str(site))
    command = [python, "-m", "mribatch.cli", "classify", "data", "--out", "out", "--json"]
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["files"] == 3
    assert json.loads((tmp_path / "out" / "run.json").read_text())["bundle"]["folder"].startswith(str(site))


def test_metadata_says_what_the_project_is() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = set(config["options.extras_require"])
    assert extras >= {"train", "dali", "rtx", "gpu-cu12", "gpu-cu13", "dev"}
    base = {line.split(">=")[0] for line in config["options"]["install_requires"].split()}
    assert base == {
        "click",
        "numpy",
        "pyarrow",
        "onnxruntime",
        "opencv-python-headless",
        "scikit-learn",
        "scipy",
        "tqdm",
    }

"""The wheel holds every package and the default model, and works outside the checkout."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.folders import draw_images

ROOT = Path(__file__).parents[1]
FOLDERS = ("cli", "core", "models", "pipeline", "report", "training", "trt")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as git would clone it, links included: a build in the checkout would leave files behind."""
    folder = tmp_path_factory.mktemp("source") / "mribatch"
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution and not from the checkout, so that both are right."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("mribatch-*.whl")
    return path


def test_every_module_and_every_model_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in FOLDERS:
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        assert not {f"mribatch/{path.relative_to(ROOT)}" for path in files} - names
    assert {"mribatch/__init__.py", "mribatch/py.typed"} <= names


def test_every_folder_is_linked_into_the_package() -> None:
    links = {path.name: path.readlink() for path in (ROOT / "mribatch").iterdir() if path.is_symlink()}
    assert links == {folder: Path("..", folder) for folder in FOLDERS}


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
    where = subprocess.run(
        [str(python), "-c", "import mribatch; print(mribatch.__file__)"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(site))
    command: list[Path | str] = [python, "-m", "mribatch.cli", "classify", "data", "--out", "out", "--json"]
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
        "nibabel",
        "numpy",
        "pyarrow",
        "onnxruntime",
        "opencv-python-headless",
        "platformdirs",
        "rich",
        "scikit-learn",
        "scipy",
        "tqdm",
    }

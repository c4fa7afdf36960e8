"""The wheel holds every package and the default model, and works outside the checkout."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from mribatch.core.about import __version__
from tests.folders import draw_images

ROOT = Path(__file__).parents[1]
FOLDERS = ("cli", "core", "models", "pipeline", "report", "training", "trt")


def tracked_files() -> list[str]:
    """The files of the checkout as git sees them, those that are new included."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as git would clone it, links included: a build in the checkout would leave files behind."""
    folder = tmp_path_factory.mktemp("source") / "mribatch"
    for name in tracked_files():
        if not name.startswith(("docs/", "benchmarks/")) and os.path.lexists(ROOT / name):
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


def test_nothing_else_is_in_the_wheel_and_nothing_twice(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    ours = {name for name in names if ".dist-info/" not in name}
    tracked = {f"mribatch/{name}" for name in tracked_files() if name.startswith(FOLDERS)}
    assert ours == tracked | {name for name in tracked_files() if name.startswith("mribatch/") and "." in name}


def test_a_package_index_would_take_both_and_the_source_holds_no_tests(wheel: Path) -> None:
    (source,) = wheel.parent.glob("mribatch-*.tar.gz")
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", wheel, source], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with tarfile.open(source) as archive:
        names = [name.split("/", 1)[-1] for name in archive.getnames()]
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks", *FOLDERS))]
    assert {"LICENSE", "README.md", "CHANGELOG.md", "mribatch/py.typed"} <= set(names)


@pytest.mark.slow
def test_one_image_is_classified_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.one_image", str(wheel), "--repeats", "1", "--model", "cnn"]
    options = ["--environment", str(tmp_path / "venv"), "--results", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "works in an empty environment" in done.stdout
    (result,) = tmp_path.glob("one_image-cnn-*.json")
    assert json.loads(result.read_text())["versions"]["mribatch"] == __version__


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
        "jinja2",
        "matplotlib",
        "nibabel",
        "numpy",
        "pyarrow",
        "onnxruntime",
        "opencv-python-headless",
        "platformdirs",
        "pydicom",
        "rich",
        "scikit-learn",
        "scipy",
        "simplejpeg",
        "tqdm",
    }

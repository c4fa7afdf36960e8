"""mribatch engine on the command line. Builds are real, with TensorRT for RTX, where it is installed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mribatch.cli.engine import engine
from mribatch.core.errors import ExitCode, MribatchError
from mribatch.trt.gpu import NoGpu, find_gpu
from tests.cli.documented_json import check_documented
from tests.folders import draw_images

no_gpu_here = pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU: the engine would run on it")


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(engine, [str(one) for one in arguments], standalone_mode=False)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install '.[rtx]'")


@pytest.fixture(scope="module")
def built(rtx: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with two engines of the tiny model."""
    cache = tmp_path_factory.mktemp("engines") / "cache"
    result = run(
        "build",
        tiny_model,
        "--flavor",
        "tensorrt-rtx",
        "--target",
        "sm86,sm89",
        "--batch-size",
        "2,4",
        "--cache",
        cache,
    )
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "bundle" and lines[0].endswith("verified how")
    assert [line.split()[3] for line in lines[1:3]] == ["sm86", "sm89"] and str(cache) in lines[3]
    return cache


@no_gpu_here
def test_build_prints_one_row_for_each_engine_and_finds_it_again(built: Path, tiny_model: Path) -> None:
    begin = time.monotonic()
    arguments = (
        "build",
        tiny_model,
        "--flavor",
        "tensorrt-rtx",
        "--target",
        "sm86,sm89",
        "--batch-size",
        "2,4",
        "--cache",
        built,
    )
    content = json.loads(run(*arguments, "--json").stdout)
    check_documented("engine build", content)
    rows = content["engines"]
    assert time.monotonic() - begin < 3
    assert [(row["target"], row["from_cache"], row["verified"]) for row in rows] == [
        ("sm86", True, "cpu-emulated"),
        ("sm89", True, "cpu-emulated"),
    ]
    assert all(row["precision"]["mode"] == "fp16" and row["ratio_to_fp32"] is None for row in rows)


@no_gpu_here
def test_the_names_of_before_still_work_and_are_not_shown(built: Path, tiny_model: Path) -> None:
    before = ("--flavour", "tensorrt-rtx", "--target", "sm89", "--batch", "2,4", "--cache", built, "--json")
    (row,) = json.loads(run("build", tiny_model, *before).stdout)["engines"]
    assert row["from_cache"] and row["trt_flavor"] == "tensorrt-rtx"
    for command in ("build", "verify"):
        shown = run(command, "--help").stdout
        assert "--batch-size MAX" in shown and "--batch " not in shown and "--flavour" not in shown
    with pytest.raises(click.BadParameter) as caught:
        engine.main(["build", "--flavour", "cuda"], standalone_mode=False)
    assert caught.value.format_message().startswith("Invalid value for '--flavor': 'cuda' is not one of")


def test_list_shows_what_there_is(built: Path, tmp_path: Path) -> None:
    assert len(run("list", "--cache", built).stdout.splitlines()) == 3
    content = json.loads(run("list", "--cache", built, "--json").stdout)
    check_documented("engine list", content)
    assert len(content["engines"]) == 2
    assert run("list", "--cache", tmp_path / "none").stdout == f"There is no engine in {tmp_path / 'none'}.\n"


@no_gpu_here
def test_inspect_shows_the_sidecar_and_why_no_layers(built: Path) -> None:
    path = next(built.glob("*sm89*.engine"))
    text = run("inspect", path, "--cache", built).stdout
    sidecar, _, reason = text.rpartition("}\n")
    assert json.loads(sidecar + "}")["target"] == "sm89"
    assert reason.startswith("Its layers can be shown on its GPU only, and there is none: ")


def test_inspect_refuses_one_flipped_byte(built: Path, tmp_path: Path) -> None:
    path = next(built.glob("*sm89*.engine"))
    copy = tmp_path / path.name
    tmp_path.chmod(0o700)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    copy.write_bytes(content)
    (tmp_path / f"{path.name}.json").write_bytes((built / f"{path.name}.json").read_bytes())
    with pytest.raises(MribatchError, match="engine_sha256"):
        run("inspect", copy, "--trust-engine")


def test_inspect_of_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="cannot read"):
        run("inspect", tmp_path / "none" / "x.engine")


def test_inspect_lets_no_sidecar_steer_the_terminal(built: Path, tmp_path: Path) -> None:
    path = next(built.glob("*sm89*.engine"))
    (tmp_path / "x.engine").write_bytes(path.read_bytes())
    sidecar = json.loads((built / f"{path.name}.json").read_text()) | {"gpu_name": "\x9b2J\u202e", "driver": "Δp"}
    (tmp_path / "x.engine.json").write_text(json.dumps(sidecar))
    text = run("inspect", tmp_path / "x.engine", "--trust-engine").stdout
    assert '"\\x9b2J\\u202e"' in text and '"Δp"' in text and "\x9b" not in text


def test_clean_keeps_what_fits_with_stale_and_nothing_without(built: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for path in built.glob("*.engine*"):
        (cache / path.name).write_bytes(path.read_bytes())
        (cache / path.name).chmod(0o600)
    old = next(cache.glob("*sm86*.json"))
    old.write_text(json.dumps(json.loads(old.read_text()) | {"trt_version": "1.0.0.0"}))
    assert run("clean", "--stale", "--cache", cache).stdout.startswith(f"1 engine deleted from {cache}")
    assert len(list(cache.glob("*.engine"))) == 1
    run("clean", "--cache", cache)
    assert [path.name for path in cache.iterdir()] == [".lock"]


@no_gpu_here
def test_verify_compares_the_golden_slices_and_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the conversion to FP16 needs the package onnx")
    draw_images(tmp_path / "data", 5, size=32)
    (tmp_path / "data" / "z-broken.png").write_bytes(b"no image")
    result = run("verify", tiny_model, "--data", tmp_path / "data", "--json")
    content = json.loads(result.stdout)
    check_documented("engine verify", content)
    (found,) = content["bundles"]
    assert found["verified"] == "cpu-emulated" and found["holds"] and found["golden_max_difference"] < 0.01
    assert found["images"]["images"] == 5 and found["images"]["same_class"] == 5
    assert result.return_value is ExitCode.OK
    limited = json.loads(run("verify", tiny_model, "--data", tmp_path / "data", "--limit", 2, "--json").stdout)
    assert limited["bundles"][0]["images"]["images"] == 2


@no_gpu_here
def test_ctrl_c_ends_a_comparison_between_two_batches(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the conversion to FP16 needs the package onnx")
    draw_images(tmp_path / "data", 41, size=32)
    code = """
import os, signal, sys
import mribatch.trt.graph.emulation as rounding
call, calls = rounding.RoundingClassifier.__call__, []
def counted(self, images):
    calls.append(len(images))
    if len(images) == 16: os.kill(os.getpid(), signal.SIGINT)  # the first batch of the user's
    return call(self, images)
rounding.RoundingClassifier.__call__ = counted
from mribatch.cli import main
main.COMMANDS["engine"] = ("mribatch.cli.engine", "")
try:
    main.main(["engine", "verify", *sys.argv[1:]])
finally:
    print(calls.count(16), calls.count(9))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tiny_model, "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == ExitCode.INTERRUPTED, result.stderr
    assert result.stderr.startswith("Error: stopped by a signal while comparing images") and result.stdout == "1 0\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--batch-size", "x"), "--batch-size 'x' is not a batch size"),
        (("--batch-size", "²"), "--batch-size '²' is not a batch size"),
        (("--batch-size", "9" * 5000), "is not a batch size"),
        (("--batch-size", "4,8,16"), "is not a batch size"),
        (("--batch-size", "8,4"), "do not rise"),
        (("--target", "ada"), "--target 'ada' does not name a GPU"),
        (("--target", "sm²"), "does not name a GPU"),
        (("--flavor", "tensorrt"), "tensorrt is not installed|there is none"),
    ],
)
@no_gpu_here
def test_what_cannot_be_built_is_one_line_with_a_fix(
    rtx: None, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(MribatchError, match=words) as caught:
        run("build", "cnn", *arguments, "--cache", tmp_path / "cache")
    assert caught.value.fix and not (tmp_path / "cache").exists()


def test_one_failure_does_not_keep_the_others_from_being_built(rtx: None, tiny_model: Path, tmp_path: Path) -> None:
    options = ("--flavor", "tensorrt-rtx", "--batch-size", "2,4", "--cache", tmp_path / "cache")
    result = run("build", tiny_model, "--target", "sm90,sm89", *options)
    assert result.return_value is ExitCode.USER_ERROR
    assert "1 engine in" in result.stdout and result.stderr.startswith("Error: TensorRT for RTX")


def test_a_signal_is_seen_while_the_main_thread_stands_in_a_library() -> None:
    code = """
import ctypes, signal, threading
from mribatch.cli.engine import show_progress
from mribatch.trt.engine.progress import BuildStep
seen = []
def report(on_step):
    seen.append(on_step(BuildStep(1, 2, "x")))
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    seen.append(on_step(BuildStep(1, 2, "x")))
    seen.append(finished)
with show_progress(quiet=True) as progress:
    finished = False
    worker = threading.Thread(target=report, args=(progress.step,))
    worker.start()
    ctypes.CDLL(None).usleep(600_000)  # in C, where no handler of Python's runs
    finished = True
    worker.join()
assert seen == [True, False, False], seen
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""The command line as a user meets it: real processes, exact messages, exit codes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mribatch.cli.main import COMMANDS, cli
from tests.cli.documented_json import check_documented
from tests.folders import draw_images, mribatch, rows
from tests.make_models import make_bad

HEAVY = ("numpy", "pyarrow", "cv2", "onnxruntime", "sklearn", "tqdm", "tensorflow", "sqlite3")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from mribatch.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    for arguments in (["--help"], ["classify", "--help"], ["--version"]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 0
        assert result.stdout.splitlines()[-1] == "[]", arguments


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_a_folder_is_classified_and_summed_up(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 12)
    result = mribatch("classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "12 files: 12 ok, 0 failed"
    assert lines[-1] == "Research use only, not a medical device."
    assert any("images/s, bottleneck: " in line for line in lines)
    assert len(rows(tmp_path / "out")) == 12


def test_json_is_one_line_on_stdout(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 5)
    (tmp_path / "data" / "broken.png").write_text("no image")
    arguments = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "--json"]
    result = mribatch(*arguments)
    assert result.returncode == 3
    assert result.stdout.count("\n") == 1
    summary = json.loads(result.stdout)
    check_documented("classify", summary)
    assert (summary["files"], summary["ok"], summary["not_ok"], summary["exit_code"]) == (6, 5, 1, 3)
    assert summary["by_status"] == {"ok": 5, "unsupported": 1}
    assert summary["research_notice"] == "Research use only, not a medical device."
    again = mribatch(*arguments)
    assert (again.returncode, json.loads(again.stdout)["new_rows"]) == (3, 0)


def test_what_libraries_print_of_damaged_files_stays_away(tmp_path: Path, tiny_model: Path) -> None:
    (image,) = draw_images(tmp_path / "data", 1, size=200)
    content = bytearray(image.read_bytes())
    content[-2:-2] = b"\x12" * 40  # before the end of the image
    (tmp_path / "data" / "garbled.jpg").write_bytes(content)
    code = "import cv2, sys; cv2.imread(sys.argv[1])"
    loud = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "data" / "garbled.jpg"], capture_output=True, check=True
    )
    assert b"Corrupt JPEG data" in loud.stderr  # the reason for all this
    result = mribatch("classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model)
    assert (result.returncode, "Corrupt JPEG" in result.stderr) == (0, False)


def test_quiet_prints_nothing(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 3)
    result = mribatch("classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_names_come_from_standard_input(tmp_path: Path, tiny_model: Path) -> None:
    paths = draw_images(tmp_path / "data", 4)
    names = "\n".join(str(path.relative_to(tmp_path)) for path in reversed(paths))
    result = mribatch("classify", "--from-file", "-", "--out", "out", "--model", tiny_model, input=names, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [row["path"] for row in rows(tmp_path / "out")] == names.splitlines()
    assert [row["label"] for row in rows(tmp_path / "out")] == [path.parent.name for path in reversed(paths)]


def test_a_dry_run_counts_and_estimates_and_writes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 30)
    (tmp_path / "data" / "a.PNG").write_bytes(b"x")
    (tmp_path / "data" / "notes.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    result = mribatch("classify", tmp_path / "data", "--dry-run", "--model", tiny_model)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("31 files would be classified")
    assert "  .jpg  30\n  .png   1\nnot listed, suffix: 1\n" in result.stdout
    assert "1 of 31 sampled files failed" in result.stdout
    assert result.stdout.endswith("Nothing was written.\n")
    as_json = json.loads(mribatch("classify", tmp_path / "data", "--dry-run", "--json", "--model", tiny_model).stdout)
    assert (as_json["files"], as_json["by_suffix"]) == (31, {".jpg": 30, ".png": 1})
    assert as_json["seconds"] > 0
    check_documented("classify --dry-run", as_json)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["gone", "--out", "o"],
            1,
            "Error: there is no file or folder 'gone'. Fix: check the path and the current folder",
        ),
        (
            ["empty", "--out", "o"],
            1,
            "Error: there is no image in the inputs: 1 other file (.txt 1). Fix: check the folder, or name the files outright to read them whatever they are called",
        ),
        (["data"], 2, "Error: Missing option '--out'. Fix: see mribatch classify --help"),
        (
            ["data", "--out", "o", "--backend", "cuda"],
            2,
            "Error: Invalid value for '--backend': 'cuda' is not one of "
            "'auto', 'onnxruntime', 'onnxruntime-cuda', 'tensorrt'. Fix: see mribatch classify --help",
        ),
        (
            ["data", "--out", "o", "--no-such"],
            2,
            "Error: No such option '--no-such'. Fix: see mribatch classify --help",
        ),
        (
            ["data", "--out", "o", "--batch-size", "0"],
            2,
            "Error: --batch-size 0 is out of range. Fix: choose a value from 1 to 1024",
        ),
        (
            ["data", "--out", "o", "--labels", "x.csv"],
            1,
            "Error: there is no labels file 'x.csv'. Fix: give auto, none or a CSV with path,label",
        ),
        (
            ["data", "--out", "data/a.jpg"],
            1,
            "Error: data/a.jpg is not a folder. Fix: name a folder that is new or empty",
        ),
        (
            ["data", "--out", "full"],
            1,
            "Error: full is not a run folder of mribatch: it holds 'x.txt' and no run.json. "
            "Fix: name a folder that is new or empty",
        ),
        (
            ["data", "--out", "full", "--overwrite"],
            1,
            "Error: full is not a run folder of mribatch: it holds 'x.txt' "
            "and no run.json. Fix: name a folder that is new or empty",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    tmp_path: Path, tiny_model: Path, arguments: list[str], code: int, message: str
) -> None:
    for name in ("data/a.jpg", "empty/notes.txt", "full/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    result = mribatch("classify", *arguments, "--model", tiny_model, cwd=tmp_path)
    stderr = result.stderr.replace("option: --no-such", "option '--no-such'")  # as some versions of click word it
    assert (result.returncode, stderr, result.stdout) == (code, message + "\n", "")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_bundle_is_one_line(tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 1)
    model = make_bad(tmp_path / "bad", "wrong_model_hash")
    result = mribatch("classify", tmp_path / "data", "--out", tmp_path / "out", "--model", model)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ") and "sha256" in result.stderr and " Fix: " in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m mribatch.cli classify --help | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


def test_progress_in_a_log_is_plain_lines() -> None:
    import io

    from mribatch.pipeline.progress import LineProgress, progress_for

    clock = iter(range(0, 10_000, 4))
    stream = io.StringIO()
    assert isinstance(progress_for(stream), LineProgress)
    lines = LineProgress(stream, clock=lambda: float(next(clock)))
    lines.start(1000, 200)
    for _ in range(8):
        lines.advance(100, 1)
    text = stream.getvalue().splitlines()
    assert text and all(line.startswith("classifying: ") and "images/s" in line and "failed" in line for line in text)
    assert "of 1,000 images" in text[0]


def test_progress_in_a_terminal_is_one_bar(tmp_path: Path) -> None:
    import io

    from mribatch.pipeline.progress import BarProgress, progress_for

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    bar = progress_for(stream)
    assert isinstance(bar, BarProgress)
    bar.listed(10)
    bar.start(1000, 200)
    time.sleep(0.6)
    bar.advance(300, 2)
    bar.close()
    assert "500/1000" in stream.getvalue() and "failed=2" in stream.getvalue()

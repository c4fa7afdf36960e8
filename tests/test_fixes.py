"""A fix names only options that its command has: in the sources, and of commands that fail."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from mribatch.cli.main import COMMANDS
from mribatch.core import errors
from mribatch.core.files import FolderLock
from mribatch.core.text import one_line
from tests.finished_run import Row, scores_for, write_run
from tests.folders import draw_images, mribatch
from tests.make_models import make_bad

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "cli", "pipeline", "report", "trt", "training")
KINDS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.MribatchError)
}
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# What several commands call names no option; the commands give their own fix with `advising`.
SHARED = ("core/", "pipeline/listing/", "pipeline/output/")


def options_of(*names: str) -> set[str]:
    """The options of a command, and of its subcommands."""
    waiting: list[click.Command] = [getattr(import_module(COMMANDS[name][0]), name.replace("-", "_")) for name in names]
    found = {"--help"}
    while waiting:
        command = waiting.pop()
        found |= {option for one in command.params for option in one.opts if option.startswith("--")}
        waiting += command.commands.values() if isinstance(command, click.Group) else []
    return found


def allowed_in(path: str) -> set[str]:
    """The options that a fix in this module may name."""
    if path.startswith(SHARED):
        return set()
    folder, name = path.split("/")[0], Path(path).stem.replace("_", "-")
    commands = {
        "cli": (name,) if name in COMMANDS else (),
        "pipeline": ("classify",),
        "report": ("report",),
        "trt": ("classify", "engine"),
        "training": ("train", "export", "features"),
    }[folder]
    return options_of(*commands)


def texts_of(node: ast.AST, constants: dict[str, str]) -> str:
    """All text in an expression, constants of the module included."""
    parts = [
        str(part.value) if isinstance(part, ast.Constant) else constants.get(part.id, "")
        for part in ast.walk(node)
        if isinstance(part, ast.Constant | ast.Name)
    ]
    return " ".join(parts)


def fixes_in(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every fix that the module gives."""
    tree = ast.parse(path.read_text())
    constants: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            constants[statement.targets[0].id] = texts_of(statement.value, constants)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
            yield node.lineno, texts_of(node.args[-1], constants).replace("--force-reinstall", "")
        elif isinstance(node, ast.Dict) and any(isinstance(key, ast.Name) and key.id in KINDS for key in node.keys):
            yield node.lineno, texts_of(node, constants)


MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_fix_names_only_options_of_its_command(path: Path) -> None:
    allowed = allowed_in(str(path.relative_to(ROOT)))
    for line, text in fixes_in(path):
        named = set(_OPTION.findall(text))
        if "classify" in text:  # "classify the images again with --overwrite" is a command of its own
            named -= options_of("classify")
        assert named <= allowed, f"{path}:{line}: {text}"


def test_fixes_are_found_in_the_sources() -> None:
    found = [text for path in MODULES for _, text in fixes_in(path)]
    assert len(found) > 150
    assert sum("--out" in text for text in found) > 3


def test_a_fix_with_another_commands_option_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text('FIX = "use --cache"\nraise WriteError("x", f"{FIX} or --out")\nf = {BundleError: "--model"}\n')
    assert [sorted(_OPTION.findall(text)) for _, text in fixes_in(path)] == [["--cache", "--out"], ["--model"]]


# ------------------------------------------------------------------------------------------------- commands that fail


def check(result: object, *command: str, problem: str) -> str:
    """The error is one line with a fix that names only options of the command. Returns the fix."""
    stderr = str(getattr(result, "stderr", "")).splitlines()
    assert getattr(result, "returncode", None) == 1 and stderr, result
    said, fix = stderr[-1].split(". Fix: ")
    assert problem in said, stderr[-1]
    named = set(_OPTION.findall(fix))
    assert named <= options_of(command[0]), fix
    return fix


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw_images(tmp_path / "data", 4)
    return tmp_path / "data"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return make_bad(tmp_path / "bad", "wrong_model_hash")


def test_classify_into_a_folder_that_cannot_be_written(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").mkdir()  # root may write anywhere, so the file is a folder
    result = mribatch("classify", data, "--out", tmp_path / "out", "--model", tiny_model)
    assert check(result, "classify", problem="could not write") == "choose an --out folder that you may write to"


def test_classify_into_a_folder_that_is_in_use(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FolderLock(tmp_path / "out"):
        result = mribatch("classify", data, "--out", tmp_path / "out", "--model", tiny_model)
    assert check(result, "classify", problem="another mribatch run") == "wait for it to end, or choose another --out"


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_classify_with_a_damaged_bundle(dry_run: tuple[str, ...], data: Path, damaged: Path, tmp_path: Path) -> None:
    result = mribatch("classify", data, "--out", tmp_path / "out", "--model", damaged, *dry_run)
    assert "--model" in check(result, "classify", problem="sha256")


def test_report_into_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row(f"{i}.jpg", "no_tumor", scores_for(i % 4, 0.9)) for i in range(8)])
    (run / "metrics.parquet").mkdir()
    check(mribatch("report", run), "report", problem="could not write")


def test_report_on_a_damaged_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row("a.jpg", "no_tumor", scores_for(2, 0.9))])
    (run / "run.json").write_text(json.dumps({"tool": "mribatch"}))
    result = mribatch("report", run)
    assert result.returncode == 1
    options = set(_OPTION.findall(result.stderr))
    assert options <= options_of("report") | (options_of("classify") if "classify" in result.stderr else set())


@pytest.mark.parametrize("command", ["verify", "build"])
def test_engine_with_a_damaged_bundle(command: str, damaged: Path, tmp_path: Path) -> None:
    result = mribatch("engine", command, damaged, "--cache", tmp_path / "cache")
    check(result, "engine", problem="")


def test_train_with_a_work_folder_that_is_in_use(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")
    (tmp_path / "work").mkdir()
    with FolderLock(tmp_path / "work"):
        result = mribatch("train", "cnn", data, "--out", tmp_path / "model", "--work", tmp_path / "work")
    check(result, "train", problem="another mribatch run is writing to")


def test_names_of_strangers_stay_on_one_line(tiny_model: Path, tmp_path: Path) -> None:
    name = "a\nb\x1b[2J"
    result = mribatch("classify", tmp_path / name, "--out", tmp_path / "out", "--model", tiny_model)
    assert one_line(name) in result.stderr and "\x1b" not in result.stderr, shlex.quote(result.stderr)

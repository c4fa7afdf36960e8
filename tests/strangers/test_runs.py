"""A run folder from a stranger: every command that reads it answers, or refuses it in one line with a fix."""

import shutil
from pathlib import Path

import pytest

from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from tests.folders import draw_images
from tests.strangers.commands import Answer, run_commands
from tests.strangers.hostile_runs import HOSTILE_RUNS
from tests.studies import write_series

COMMANDS = {
    "report": ("report", "{run}", "--no-html"),
    "verify": ("verify", "{run}", "--inputs"),
    "table": ("table", "{run}"),
    "table --series": ("table", "{run}", "--series"),
    "compare": ("compare", "{run}", "{good}"),
}


def try_runs(folder: Path, model: Path) -> dict[str, Answer]:
    """The answer of every command to every run; `folder` is made."""
    draw_images(folder / "data", 8)
    write_series(folder / "data" / "series", 3)
    classify([folder / "data"], folder / "good", ClassifyOptions(model=str(model)))
    commands = {}
    for name, change in HOSTILE_RUNS.items():
        run = Path(shutil.copytree(folder / "good", folder / name.replace(" ", "-")))
        change(run)
        for command, words in COMMANDS.items():
            commands[f"{command}: {name}"] = [word.format(run=run, good=folder / "good") for word in words]
    return run_commands(commands, folder)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Answer]:
    return try_runs(tmp_path_factory.mktemp("strangers") / "runs", tiny_model)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE_RUNS)
def test_a_hostile_run_is_read_or_refused_in_one_line(name: str, answers: dict[str, Answer]) -> None:
    found = {command: answers[f"{command}: {name}"] for command in COMMANDS}
    problems = {command: answer.problem for command, answer in found.items() if answer.problem}
    assert not problems, "\n".join(f"{command}: {problem}" for command, problem in problems.items())
    for answer in found.values():
        assert answer.shows_plain_text, answer

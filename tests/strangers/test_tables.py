"""Tables and lists from strangers: read, or refused in one line with a fix."""

import shutil
from pathlib import Path

import pytest

from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from tests.folders import draw_images
from tests.strangers.commands import Answer, run_commands
from tests.strangers.hostile_tables import HOSTILE_LISTS, HOSTILE_TABLES


def try_tables(folder: Path, model: Path) -> dict[str, Answer]:
    """The answer to every table and list, each in two ways; `folder` is made."""
    shutil.copy(draw_images(folder / "data", 2)[0], folder / "data" / "a.png")  # what most of the tables name
    classify([folder / "data"], folder / "run", ClassifyOptions(model=str(model)))
    commands: dict[str, list[object]] = {}
    begin = ["classify", "--model", model, "--quiet", "--out"]
    for number, (name, write) in enumerate(HOSTILE_TABLES.items()):
        table = folder / f"{number}.csv"
        write(table)
        commands[f"labels: {name}"] = [*begin, folder / f"labels-{number}", folder / "data", "--labels", table]
        commands[f"groups: {name}"] = ["report", folder / "run", "--no-html", "--groups", table]
    for number, (name, write) in enumerate(HOSTILE_LISTS.items()):
        names = folder / f"{number}.txt"
        write(names)
        commands[f"list: {name}"] = [*begin, folder / f"list-{number}", "--from-file", names]
        commands[f"null: {name}"] = [*begin, folder / f"null-{number}", "--null", "--from-file", names]
    return run_commands(commands, folder)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Answer]:
    return try_tables(tmp_path_factory.mktemp("strangers") / "tables", tiny_model)


NAMES = [
    *(f"{kind}: {name}" for kind in ("labels", "groups") for name in HOSTILE_TABLES),
    *(f"{kind}: {name}" for kind in ("list", "null") for name in HOSTILE_LISTS),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_table_is_read_or_refused_in_one_line(name: str, answers: dict[str, Answer]) -> None:
    assert not answers[name].problem and answers[name].shows_plain_text

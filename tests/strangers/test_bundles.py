"""Bundles from strangers: `classify` works with them, or refuses them in one line with a fix."""

from pathlib import Path

import pytest

from tests.folders import draw_images
from tests.make_models import make_tiny
from tests.strangers.commands import Answer, run_commands
from tests.strangers.hostile_bundles import HOSTILE_BUNDLES


def try_bundles(folder: Path) -> dict[str, Answer]:
    """The answer of `classify` to every bundle; `folder` is made."""
    draw_images(folder / "data", 2)
    commands: dict[str, list[object]] = {}
    for number, (name, change) in enumerate(HOSTILE_BUNDLES.items()):
        bundle = make_tiny(folder / f"bundle-{number}", trained=True)
        change(bundle)
        commands[name] = ["classify", folder / "data", "--out", folder / f"out-{number}", "--model", bundle, "--quiet"]
    return run_commands(commands, folder)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    return try_bundles(tmp_path_factory.mktemp("strangers") / "bundles")


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE_BUNDLES)
def test_a_hostile_bundle_is_used_or_refused_in_one_line(name: str, answers: dict[str, Answer]) -> None:
    assert not answers[name].problem and answers[name].shows_plain_text

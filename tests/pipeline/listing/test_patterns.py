"""Patterns mean what their documentation says."""

import subprocess
from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.patterns import PathPatterns

PATHS = [
    "a.png",
    "a.tmp",
    "ab.png",
    "masks/a.png",
    "sub/a.png",
    "sub/masks/deep/b.png",
    "sub/masks.png",
    "sub/x/y/c.png",
    "notes",
    "sub/notes",
    "[x].png",
]
PATTERNS = [
    "*.tmp",
    "a.png",
    "?.png",
    "/a.png",
    "masks",
    "masks/",
    "/masks/",
    "**/masks",
    "**/masks/",
    "sub/*.png",
    "sub/**",
    "sub/**/c.png",
    "sub/**/*.png",
    "/notes",
    "[ab].png",
    "[!ab].png",
    "[a-c]*.png",
    "\\[x].png",
    "s*/masks/",
    "[",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_leaves_out_what_git_ignores(tmp_path: Path, pattern: str) -> None:
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    git = ["git", "-C", str(tmp_path), "-c", "core.excludesFile=", "-c", "core.quotePath=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text(f"{pattern}\n")
    command = [*git, "ls-files", "--others", "--ignored", "--exclude-standard", "-z"]
    ignored = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    patterns = PathPatterns([pattern])
    assert [path for path in sorted(PATHS) if patterns.find_above(path.encode())] == sorted(ignored)


def test_paths_as_lists_write_them_are_taken_from_the_input_on() -> None:
    patterns = PathPatterns(["/data/*.png"])
    assert [patterns.find_above(path) for path in (b"./data/a.png", b"/data/a.png", b"x/data/a.png")] == [
        "/data/*.png",
        "/data/*.png",
        None,
    ]


def test_a_letter_is_a_letter_also_where_it_has_two_bytes() -> None:
    assert PathPatterns(["?.png"]).find("ä.png".encode(), folder=False) == "?.png"


def test_names_that_are_not_utf_8_can_be_matched() -> None:
    assert PathPatterns(["*.png"]).find(b"\xff.png", folder=False) == "*.png"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "the pattern '' is empty"),
        ("/", "the pattern '/' is empty"),
        ("!keep.png", "begins with '!', which is not supported"),
        ("[z-a].png", "cannot be read: bad character range z-a"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(
        MribatchError, match=f"{problem}.*Fix: write it like a line of a .gitignore file".replace("[", "[[]")
    ):
        PathPatterns([pattern])

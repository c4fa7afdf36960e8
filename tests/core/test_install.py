"""The install command fits the origin of this copy."""

from pathlib import Path

import pytest

from mribatch.core.about import __version__
from mribatch.core.install import find_checkout, format_command, install_command

ROOT = Path(__file__).parents[2]


def test_a_checkout_is_installed_from_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_command("dali") == "pip install -e '.[dali]'"
    assert install_command() == "pip install -e ."
    monkeypatch.chdir(tmp_path)
    assert install_command("dali", reinstall=True) == f"pip install --force-reinstall -e '{ROOT}[dali]'"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, f"pip install 'mribatch[rtx]=={__version__}'"),
        (
            {"url": "file:///a%20b/mribatch-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install '/a b/mribatch-0.1.0-py3-none-any.whl[rtx]'",
        ),
        ({"url": "file:///src/mribatch", "dir_info": {}}, "pip install '/src/mribatch[rtx]'"),
        (
            {"url": "https://example.org/m.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'mribatch[rtx] @ git+https://example.org/m.git@abc'",
        ),
        (
            {"url": "https://example.org/mribatch-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'mribatch[rtx] @ https://example.org/mribatch-0.1.0-py3-none-any.whl'",
        ),
    ],
)
def test_an_installed_copy_is_installed_from_its_origin(origin: dict[str, object] | None, command: str) -> None:
    assert format_command("rtx", checkout=None, origin=origin) == command


def test_only_a_checkout_of_mribatch_is_one(tmp_path: Path) -> None:
    assert find_checkout(ROOT) == ROOT
    assert find_checkout(tmp_path) is None
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = other\n")
    assert find_checkout(tmp_path) is None


def test_nothing_advises_to_install_from_an_index() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    sources = [
        path
        for folder in ("cli", "core", "pipeline", "report", "trt", "training")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in (*pages, *sources):
        assert "pip install 'mribatch" not in path.read_text(), path

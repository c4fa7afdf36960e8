"""Which commit of the project is running: read from the checkout's .git, without running git."""

import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # SHA-1 or SHA-256 repositories
_ROOT = Path(__file__).resolve().parents[1]  # of the checkout; of the package where it was installed from a wheel


def git_revision(root: Path = _ROOT) -> str | None:
    """The commit that a checkout stands at, in hex; changes that were not committed do not show in it.

    None where `root` itself has no .git (an enclosing repository is another project's) or keeps its references in a
    form other than files. Source: https://git-scm.com/docs/gitrepository-layout
    """
    try:
        git = _git_folder(root / ".git")
        head = _text(git / "HEAD")
        commit = _of_reference(git, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    except (OSError, ValueError):
        return None
    return commit if commit and _COMMIT.fullmatch(commit) else None


def _git_folder(git: Path) -> Path:
    """A worktree and a submodule have a file there that names the folder."""
    return git if git.is_dir() else git.parent / _text(git).removeprefix("gitdir: ")


def _of_reference(git: Path, name: str) -> str | None:
    """A branch's commit, from its own file or from the packed ones; a worktree shares its repository's branches."""
    common = git / _text(git / "commondir") if (git / "commondir").is_file() else git
    if (common / name).is_file():
        return _text(common / name)
    lines = (line.partition(" ") for line in _text(common / "packed-refs").splitlines())
    return next((commit for commit, _, reference in lines if reference == name), None)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()

"""The commit of the checkout, read as git would name it. The repositories are real."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mribatch.trt.revision import git_revision

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: object) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", folder, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    (root / "file").write_text("1")
    git(root, "add", "file")
    git(root, "commit", "--quiet", "--message", "one")
    return root


@needs_git
def test_a_branch_a_packed_one_and_a_commit_without_one(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert git_revision(checkout) == head
    git(checkout, "pack-refs", "--all")
    assert not (checkout / ".git/refs/heads/main").exists() and git_revision(checkout) == head
    git(checkout, "checkout", "--quiet", "--detach")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "two")
    assert git_revision(checkout) == git(checkout, "rev-parse", "HEAD") != head


@needs_git
def test_a_worktree_has_its_own_commit_on_the_repositorys_branches(checkout: Path, tmp_path: Path) -> None:
    worktree = tmp_path / "worktree"
    git(checkout, "worktree", "add", "--quiet", "-b", "side/branch", worktree)
    git(worktree, "commit", "--quiet", "--allow-empty", "--message", "side")
    assert git_revision(worktree) == git(worktree, "rev-parse", "HEAD") != git_revision(checkout)


@needs_git
def test_an_enclosing_repository_is_another_projects(checkout: Path) -> None:
    inside = checkout / "venv/lib/site-packages/mribatch"
    inside.mkdir(parents=True)
    assert git_revision(inside) is None


@pytest.mark.parametrize(
    "head", ["", "ref: refs/heads/none", "ref: ../secret", "ref: refs", "0" * 39, "z" * 40, "\xff"]
)
def test_what_names_no_commit_is_none(head: str, tmp_path: Path) -> None:
    git_folder = tmp_path / ".git"
    (git_folder / "refs").mkdir(parents=True)
    (tmp_path / "secret").write_text("not a commit")
    (git_folder / "HEAD").write_bytes(head.encode("latin-1"))
    assert git_revision(tmp_path) is None
    (git_folder / "HEAD").unlink()
    assert git_revision(tmp_path) is None

"""The one exception a user meets, and the exit codes of every command.

MribatchError             one line: what is wrong and what to do about it; no traceback
  OptionError             an option or argument has a value that it cannot take, whatever the files are
  RequirementNotMetError  a figure is not what the user demands: --require, --max-flips, --max-failures
  WriteError              the file system refused to write
    DiskFullError         no space, no quota, or a limit on the size of files
    StorageError          a disk or a network folder that fails, in reading, too
  LimitError              a limit on open files, threads or processes
    MemoryLimitError      not enough memory
  FolderGoneError         the folder was removed or replaced while we wrote to it
  FolderLockedError       another process is working in the folder
  NoLocksError            the file system of the folder has no locks
  BundleError             a model bundle that is missing, damaged or does not fit
  RunError                a run folder that is missing, damaged, incomplete or not ours
  Interrupted             a signal came; the same command resumes the work
anything else             a bug of ours: keeps its traceback

A function that several commands share cannot know their options. It raises one of the kinds above with a fix that is
right for every caller and names no option; the command replaces it by a better one with `advising`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from enum import IntEnum

from mribatch.core.text import one_line


class ExitCode(IntEnum):
    """What a process ends with; a scheduler may rely on these."""

    OK = 0
    USER_ERROR = 1
    USAGE = 2  # the command line itself is wrong: a command, an option, or a value that it cannot take
    ROWS_NOT_OK = 3
    REQUIREMENT_NOT_MET = 4  # a figure is not what the user demands; what was done until then is written
    INTERRUPTED = 130
    HUNG_UP = 129  # SIGHUP: the terminal was closed
    TERMINATED = 143


def end_sentence(text: str) -> str:
    """End a text with one full stop, unless it ends with a question mark already."""
    text = text.rstrip(". ")
    return text if text.endswith(("?", "!", "?)")) else f"{text}."


class MribatchError(Exception):
    """A problem that the user can fix.

    Args:
        problem: One sentence that names the thing and the number, without a final "Error".
        fix: One imperative sentence or command.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix
        self.exit_code = ExitCode.USER_ERROR
        self.advised = False  # whether `advising` has replaced the fix

    def __str__(self) -> str:
        return one_line(f"{end_sentence(self.problem)} Fix: {self.fix}")


class OptionError(MribatchError):
    """An option or argument has a value that it cannot take, whatever the files are; exit code 2."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.exit_code = ExitCode.USAGE


class RequirementNotMetError(MribatchError):
    """A figure is not what the user demands; what was done until then is written. Exit code 4."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.exit_code = ExitCode.REQUIREMENT_NOT_MET


class WriteError(MribatchError):
    """The file system refused to write."""


class DiskFullError(WriteError):
    """There is no space or quota left, or the file would be larger than allowed."""


class StorageError(WriteError):
    """The disk or the network folder failed: what was written is as before, what was read may be readable again."""


class LimitError(MribatchError):
    """The operating system gives no more open files, threads or processes."""


class MemoryLimitError(LimitError):
    """There is not enough memory."""


class FolderGoneError(MribatchError):
    """The folder was removed or replaced while this process wrote to it."""


class FolderLockedError(MribatchError):
    """Another process is working in the folder."""


class NoLocksError(MribatchError):
    """The file system of the folder has no locks, so two processes could not be kept apart."""


class BundleError(MribatchError):
    """A model bundle is missing, damaged or of another format."""


class RunError(MribatchError):
    """A run folder is missing, damaged, incomplete or was not written by mribatch."""


class Interrupted(MribatchError):
    """A signal ended the work between two steps; the same command resumes it.

    exit_code: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.
    """

    def __init__(self, exit_code: ExitCode, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.exit_code = exit_code


@contextlib.contextmanager
def advising(fixes: Mapping[type[MribatchError], str]) -> Iterator[None]:
    """Give errors of the kinds named the fix that this command knows; the innermost `advising` wins.

    Args:
        fixes: Kind -> fix. The first kind that fits is taken, so name a subclass before its base.
    """
    try:
        yield
    except MribatchError as error:
        fix = next((fix for kind, fix in fixes.items() if isinstance(error, kind)), None)
        if fix is not None and not error.advised:
            error.fix, error.advised = fix, True
        raise

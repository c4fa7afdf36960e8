"""The one exception a user meets, and the exit codes of every command.

MribatchError        one line: what is wrong and what to do about it; no traceback
  Interrupted        a signal came; the same command goes on
anything else        a bug of ours: keeps its traceback
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process ends with; a scheduler may rely on these."""

    OK = 0
    USER_ERROR = 1
    USAGE = 2
    ROWS_NOT_OK = 3
    INTERRUPTED = 130
    TERMINATED = 143


class MribatchError(Exception):
    """A problem that the user can mend.

    Args:
        problem: One sentence that names the thing and the number, without a final "Error".
        fix: One imperative sentence or command.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix
        self.exit_code = ExitCode.USER_ERROR

    def __str__(self) -> str:
        return one_line(f"{self.problem.rstrip('.')}. Fix: {self.fix}")


class Interrupted(MribatchError):
    """A signal ended the work between two steps; the same command goes on.

    exit_code: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, exit_code: ExitCode, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.exit_code = exit_code


def one_line(text: str) -> str:
    """With what would break the line or steer a terminal (a file's name may hold it) written as escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)

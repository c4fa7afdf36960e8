"""What a build says of itself while it runs, and how it is stopped."""

from dataclasses import dataclass

from mribatch.core.errors import ExitCode, Interrupted


@dataclass(frozen=True)
class BuildStep:
    """How far a build is: `done` of `total` steps of the whole; `phase` is the innermost step under way."""

    done: int
    total: int
    phase: str


class BuildProgress:
    """Listens to a build. This one is silent and stops nothing; others override what they need."""

    def note(self, text: str) -> None:
        """Take one line that the user should read: why an engine is built, or what is waited for."""

    def step(self, step: BuildStep) -> bool:
        """Take a step, about a hundred times, from any thread. False stops the build."""
        return True


def interrupted(activity: str) -> Interrupted:
    """The error to raise where `step` has returned False during `activity`."""
    return Interrupted(
        ExitCode.INTERRUPTED,
        f"stopped by a signal while {activity}",
        "type the same command again; finished engines are in the cache",
    )

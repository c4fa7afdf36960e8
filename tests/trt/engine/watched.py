"""A BuildProgress that keeps what it is told."""

from collections.abc import Callable

from mribatch.trt.engine.progress import BuildProgress, BuildStep


class Watched(BuildProgress):
    """answer: to each step; False stops the build."""

    def __init__(self, answer: Callable[[BuildStep], bool] = lambda step: True) -> None:
        self.notes: list[str] = []
        self.steps: list[BuildStep] = []
        self._answer = answer

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: BuildStep) -> bool:
        self.steps.append(step)
        return self._answer(step)

    @property
    def engines(self) -> set[str]:
        """Of the steps: what was built."""
        return {step.phase.split(":")[0] for step in self.steps}

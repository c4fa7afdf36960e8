"""The epochs of a fit: what was measured after each, which one is kept, and when the fit is finished."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mribatch.training.recipes.recipe import Recipe

_EPOCHS_BETWEEN_SCORES = 4  # if no epoch is chosen, scoring only costs time


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of the history. Training figures are of augmented slices with dropout, as they were learned."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy, nats
    accuracy: float
    val_loss: float  # of the watched images, see workflow.inputs.select_watched; NaN if they were not scored
    val_accuracy: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the row as the state file holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read a row of the state file.

        Raises:
            ValueError: A field is missing, unknown or not a number; names it.
        """
        names = {field.name for field in fields(cls)}
        if different := sorted(names ^ content.keys()):
            raise ValueError(f"an epoch of its history has other fields: {', '.join(different)}")
        for name, value in content.items():
            if isinstance(value, bool) or not isinstance(value, int if name == "epoch" else int | float):
                raise ValueError(f"the field '{name}' of an epoch is {value!r}")
        return cls(**content)


def find_best_epoch(history: Sequence[Epoch], recipe: Recipe) -> int:
    """Return the first epoch with the lowest validation loss, or the last epoch if the recipe keeps that."""
    return len(history) if recipe.keep == "last" else min(history, key=lambda row: row.val_loss).epoch


def is_scored(recipe: Recipe, epoch: int) -> bool:
    """Tell whether the watched images are scored after that epoch: always if they choose, else now and then."""
    return recipe.keep == "best" or epoch == recipe.epochs or epoch % _EPOCHS_BETWEEN_SCORES == 0


def is_finished(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether the epochs or the patience have run out."""
    if not history:
        return False
    waited = len(history) - find_best_epoch(history, recipe)
    return len(history) >= recipe.epochs or waited >= recipe.patience


def describe_last_epoch(history: Sequence[Epoch], recipe: Recipe, watched: str) -> str:
    """Return one line of progress about the last epoch; `watched` names the part that was scored."""
    row = history[-1]
    scored = f"{watched} loss {row.val_loss:.4f}, accuracy {row.val_accuracy:.4f}; "
    chosen = f"best epoch {find_best_epoch(history, recipe)}; " if recipe.keep == "best" else ""
    return (
        f"epoch {row.epoch}/{recipe.epochs}: loss {row.loss:.4f}, accuracy {row.accuracy:.4f}; "
        f"{'' if math.isnan(row.val_loss) else scored}{chosen}{row.seconds:.1f} s"
    )

"""The fit: epochs, early stopping, and a folder from which a killed fit resumes with the same result.

After every epoch one file, state.npz, is replaced atomically; it holds weights, optimizer state, history and epoch.
Everything random in an epoch (order, augmentation, dropout) is drawn from (seed, epoch), so epoch n + 1 computed from
the state after epoch n is the same whether or not the process was killed in between: bit for bit on the same machine
type, number of threads and library versions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.training.data.images import Images
from mribatch.training.fit.checkpoints import Checkpoints
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.history import Epoch, describe_last_epoch, find_best_epoch, is_finished, is_scored
from mribatch.training.fit.teaching import Teacher
from mribatch.training.fit.trainer import Trainer
from mribatch.training.recipes.recipe import Recipe

Echo = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FitInputs:
    """Everything that goes into a fit."""

    recipe: Recipe
    train: Images
    watched: Images  # scored while the fit runs; may be empty
    classes: int  # number of outputs
    seed: int
    fingerprint: FitFingerprint
    teacher: Teacher | None = None  # of the training part


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The network with the weights of the best epoch."""

    network: Any  # keras.Model
    history: tuple[Epoch, ...]
    best_epoch: int
    resumed_after: int  # epochs that an earlier process had completed


def fit(inputs: FitInputs, checkpoints: Checkpoints, echo: Echo, *, quiet: bool = True) -> FitResult:
    """Train from the initial weights, or resume from the checkpoints, until patience or epochs run out.

    Raises:
        MribatchError: The checkpoints belong to another fit (names the field that differs), or the loss is not finite.
    """
    recipe = inputs.recipe
    checkpoints.check_fingerprint(inputs.fingerprint)
    trainer = Trainer(recipe, inputs.classes, inputs.seed, teacher=inputs.teacher, quiet=quiet)
    history = trainer.restore(checkpoints)
    done = len(history)
    if done > recipe.epochs:
        problem = f"{checkpoints.folder} holds {done} epochs, --epochs asks for {recipe.epochs}"
        raise MribatchError(problem, f"give --epochs {done} or more")
    while not is_finished(history, recipe):
        history = [*history, trainer.run_epoch(len(history) + 1, inputs.train, inputs.watched)]
        best = find_best_epoch(history, recipe)
        trainer.save(checkpoints, history, is_best=best == len(history) and is_scored(recipe, best))
        echo(describe_last_epoch(history, recipe, inputs.watched.name))
    best = find_best_epoch(history, recipe)
    trainer.load_best(checkpoints, best)
    return FitResult(network=trainer.network, history=tuple(history), best_epoch=best, resumed_after=done)

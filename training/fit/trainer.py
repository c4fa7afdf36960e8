"""Network and optimizer, what one epoch does to them, and how their state is saved and restored."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.training.data.images import Images
from mribatch.training.fit.augment import augment
from mribatch.training.fit.batch_statistics import compile_measurement
from mribatch.training.fit.checkpoints import Arrays, Checkpoints
from mribatch.training.fit.history import Epoch, find_best_epoch, is_scored
from mribatch.training.fit.losses import cross_entropy, smoothed_cross_entropy, taught_cross_entropy
from mribatch.training.fit.mixing import SoftBatch, mix, mixes
from mribatch.training.fit.teaching import Teacher
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import (
    build,
    compile_prediction,
    grey_to_rgb,
    learning_model,
    learning_model_of_any_size,
)
from mribatch.training.networks.frame import frame_slices
from mribatch.training.recipes.phases import augmentation_in, is_late, learning_rate_after
from mribatch.training.recipes.recipe import Recipe

_NO_EPOCH = 0  # augmentation draws from (seed, epoch, image); other draws have this in place of the epoch
_MIXING = 2_000_000
_STATISTICS = 1_000_000  # above the positions of the dropout layers, which draw from (seed, _NO_EPOCH, epoch, position)

# (pixels, labels or else truth and answers, learning rate, decay of the averages) -> (sum of losses, number of hits)
Step = Callable[..., tuple[Any, Any]]


class Trainer:
    """Trains one network epoch by epoch.

    Attributes:
        network: keras.Model; its weights change with every step.
        averages: Moving averages of the trainable weights, in their order; empty if the recipe keeps none.
    """

    def __init__(
        self, recipe: Recipe, classes: int, seed: int, *, teacher: Teacher | None = None, quiet: bool = True
    ) -> None:
        _, keras = load_keras()
        self._recipe = recipe
        self._classes = classes
        self._seed = seed
        self._teacher = teacher
        self._quiet = quiet
        self._framed: tuple[Images, int, Images] | None = None
        self._is_soft = teacher is not None or mixes(recipe)
        self.network = build(recipe, classes, seed)
        self._optimizer = make_optimizer(recipe)
        self._optimizer.build(self.network.trainable_variables)
        learned = self.network.trainable_variables if recipe.weights_average or recipe.average_epochs else []
        self.averages = [keras.Variable(variable.numpy(), trainable=False) for variable in learned]
        self.step: Step = self._compile_step()
        self._predict = compile_prediction(self.network)
        self._measure_statistics = compile_measurement(self.network) if recipe.clean_statistics else None

    def run_epoch(self, number: int, train: Images, watched: Images) -> Epoch:
        """Train for one epoch and score the watched images, if it is their turn.

        Args:
            number: From 1.
            train: The training part.
            watched: Scored after the epoch; may be empty.

        Raises:
            MribatchError: The loss is not finite.
        """
        started = time.perf_counter()
        self._seed_dropout(number)
        loss, accuracy = self._learn(number, self._frame(train, number))
        self._average_epoch(number)
        scored = is_scored(self._recipe, number) and len(watched.labels) > 0
        with self.averaged_weights(number):
            if self._measure_statistics is not None and is_scored(self._recipe, number):
                random = np.random.default_rng((self._seed, _NO_EPOCH, number, _STATISTICS))
                self._measure_statistics(train.pixels, random)
            val_loss, val_accuracy = self._score(watched) if scored else (math.nan, math.nan)
        row = Epoch(
            epoch=number,
            loss=loss,
            accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.perf_counter() - started,
        )
        if not np.isfinite([loss, val_loss] if scored else [loss]).all():
            raise MribatchError(f"the loss of epoch {number} is not a finite number", "use a lower learning rate")
        return row

    @contextlib.contextmanager
    def averaged_weights(self, epoch: int | None = None) -> Iterator[None]:
        """While entered, the network has the averages in place of its weights, if there are any after that epoch."""
        begun = epoch is None or not self._recipe.average_epochs or self._count_averaged(epoch) > 0
        learned = self.network.trainable_variables if self.averages and begun else []
        before = [variable.numpy() for variable in learned]
        for variable, average in zip(learned, self.averages, strict=False):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(learned, before, strict=True):
                variable.assign(value)

    def save(self, checkpoints: Checkpoints, history: list[Epoch], *, is_best: bool) -> None:
        """Save the state after the last epoch of `history`, and its weights apart if it is the best one."""
        if is_best:
            with self.averaged_weights(len(history)):
                checkpoints.write_best(len(history), _name_arrays("network", self.network.variables))
        arrays = {
            **_name_arrays("network", self.network.variables),
            **_name_arrays("optimizer", self._optimizer.variables),
            **_name_arrays("average", self.averages),
        }
        checkpoints.write_state(arrays, history)
        checkpoints.remove_best_except(find_best_epoch(history, self._recipe))

    def restore(self, checkpoints: Checkpoints) -> list[Epoch]:
        """Restore the state of the checkpoints and return its history; empty before the first epoch.

        Raises:
            MribatchError: The state is damaged or belongs to another network.
        """
        state = checkpoints.read_state()
        if state is None:
            return []
        _assign("network", self.network.variables, state.arrays, checkpoints)
        _assign("optimizer", self._optimizer.variables, state.arrays, checkpoints)
        _assign("average", self.averages, state.arrays, checkpoints)
        return list(state.history)

    def load_best(self, checkpoints: Checkpoints, epoch: int) -> None:
        """Load the weights of the best epoch."""
        _assign("network", self.network.variables, checkpoints.read_best(epoch), checkpoints)

    def _learn(self, number: int, train: Images) -> tuple[float, float]:
        """Run one pass over the training part and return mean loss and accuracy during it."""
        recipe, count = self._recipe, len(train.labels)
        order = np.random.default_rng((self._seed, _NO_EPOCH, number)).permutation(count).astype(int64)
        share, augmentation = recipe.batch / count, augmentation_in(recipe, number)
        loss = hits = 0.0
        for start in self._show_progress(range(0, count, recipe.batch), number):
            chosen = order[start : start + recipe.batch]
            pixels = augment(
                train.pixels[chosen],
                chosen,
                augmentation,
                seed=self._seed,
                epoch=number,
                pool=train.pixels,
            )
            rate = learning_rate_after(recipe, number - 1 + start / count)
            steps = round((number - 1 + start / count) / share)
            decay = min(recipe.weights_average, (1 + steps) / (10 + steps))  # forgets the initial weights quickly
            learned = self._select_targets(pixels, chosen, train.labels[chosen], number)
            batch_loss, batch_hits = self.step(*learned, np.float32(rate), np.float32(decay))
            loss += float(batch_loss)
            hits += float(batch_hits)
        return loss / count, hits / count

    def _select_targets(
        self, pixels: NDArray[uint8], chosen: NDArray[int64], labels: NDArray[int64], epoch: int
    ) -> tuple[NDArray[Any], ...]:
        """Return what a step learns from: pixels and labels, or mixed pixels, truth and answers."""
        if not self._is_soft:
            return pixels, labels
        truth = np.eye(self._classes, dtype=float32)[labels]
        answers = truth
        if self._teacher is not None:
            answers = self._teacher.teach(chosen, self._recipe, seed=self._seed, epoch=epoch)
        random = np.random.default_rng((self._seed, _NO_EPOCH, epoch, _MIXING + int(chosen[0])))
        batch = SoftBatch(pixels=pixels, truth=truth, answers=answers)
        if not is_late(self._recipe, epoch):
            batch = mix(batch, self._recipe, random)
        return batch.pixels, batch.truth, batch.answers

    def _frame(self, train: Images, number: int) -> Images:
        """Return the slices that the learning layers see; they are framed once, before they are changed at random."""
        recipe = self._recipe
        side = recipe.early_frame if number <= recipe.early_epochs else recipe.frame
        if not side:
            return train
        if self._framed is None or self._framed[0] is not train or self._framed[1] != side:
            self._framed = train, side, replace(train, pixels=frame_slices(train.pixels, side))
        return self._framed[2]

    def _count_averaged(self, epoch: int) -> int:
        """Return how many epochs the mean of the last epochs has after that epoch."""
        return max(0, epoch - (self._recipe.epochs - self._recipe.average_epochs))

    def _average_epoch(self, number: int) -> None:
        """Add the weights to the mean of the last epochs' (Izmailov et al. 2018, arXiv:1803.05407)."""
        count = self._count_averaged(number) if self._recipe.average_epochs else 0
        if count:
            for average, variable in zip(self.averages, self.network.trainable_variables, strict=True):
                average.assign(average + (variable - average) / count)

    def _score(self, watched: Images) -> tuple[float, float]:
        """Return loss and accuracy of the watched images."""
        logits = self._predict(watched.pixels)
        accuracy = float((logits.argmax(axis=1) == watched.labels).mean())
        return cross_entropy(logits, watched.labels), accuracy

    def _show_progress(self, starts: range, number: int) -> Iterable[int]:
        from tqdm import tqdm

        disable = True if self._quiet else None  # None: unless stderr is a terminal
        progress: Iterable[int] = tqdm(starts, f"epoch {number}", unit="batch", delay=2, leave=False, disable=disable)
        return progress

    def _compile_step(self) -> Step:
        """Compile a step that takes pixels and labels, or pixels, truth and answers; then rate and decay."""
        tensorflow, _ = load_keras()
        recipe = self._recipe
        early, optimizer = recipe.early_epochs > 0, self._optimizer
        inner = learning_model_of_any_size(self.network) if early else learning_model(self.network)
        side = None if early else recipe.frame or recipe.size
        averages = self.averages if recipe.weights_average else []
        number = tensorflow.TensorSpec((), tensorflow.float32)
        pixels = tensorflow.TensorSpec((None, side, side, 1), tensorflow.uint8)
        targets = [tensorflow.TensorSpec((None,), tensorflow.int64)]
        losses_of: Callable[..., Any] = smoothed_cross_entropy(recipe.label_smoothing)
        if self._is_soft:
            share = recipe.teacher_share if self._teacher is not None else 0.0
            losses_of = taught_cross_entropy(recipe.label_smoothing, share, recipe.teacher_temperature)
            targets = [tensorflow.TensorSpec((None, self._classes), tensorflow.float32)] * 2
        signature = [pixels, *targets, number, number]

        def step(images: Any, *rest: Any) -> Any:
            *learned, rate, decay = rest
            with tensorflow.GradientTape() as tape:
                logits = inner(grey_to_rgb(images), training=True)
                losses = losses_of(*learned, logits)
                mean = tensorflow.reduce_mean(losses)
            optimizer.learning_rate = rate
            optimizer.apply(tape.gradient(mean, inner.trainable_variables), inner.trainable_variables)
            for average, variable in zip(averages, inner.trainable_variables, strict=bool(averages)):
                average.assign(average + (1 - decay) * (variable - average))
            labels = tensorflow.argmax(learned[0], axis=1) if self._is_soft else learned[0]
            hits = tensorflow.equal(tensorflow.argmax(logits, axis=1), labels)
            return tensorflow.reduce_sum(losses), tensorflow.reduce_sum(tensorflow.cast(hits, tensorflow.float32))

        # jit_compile=False: XLA is about five times slower on a CPU
        compiled: Step = tensorflow.function(step, input_signature=signature, autograph=False, jit_compile=False)
        return compiled

    def _seed_dropout(self, epoch: int) -> None:
        """Set the generators of all layers that draw numbers; Keras keeps their states in variables."""
        states = [variable for variable in self.network.variables if variable.path.endswith("seed_generator_state")]
        for position, variable in enumerate(states):
            draw = np.random.default_rng((self._seed, _NO_EPOCH, epoch, position + 1))
            variable.assign(draw.integers(0, 2**32, tuple(variable.shape), dtype=np.uint32))


def make_optimizer(recipe: Recipe) -> Any:
    """Return Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019); the rate is set at every step."""
    _, keras = load_keras()
    clipnorm = recipe.clipnorm or None
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.learning_rate, clipnorm=clipnorm)
    optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, clipnorm=clipnorm)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _name_arrays(group: str, variables: list[Any]) -> dict[str, NDArray[Any]]:
    return {f"{group}/{position}": variable.numpy() for position, variable in enumerate(variables)}


def _assign(group: str, variables: list[Any], arrays: Arrays, checkpoints: Checkpoints) -> None:
    for position, variable in enumerate(variables):
        array = arrays.get(f"{group}/{position}")
        if array is None or array.shape != tuple(variable.shape):
            problem = f"the checkpoint in {checkpoints.folder} does not fit the network"
            raise MribatchError(problem, "choose another --work folder")
        variable.assign(array)

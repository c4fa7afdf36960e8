"""The fit: epochs, early stopping, and a work folder from which a killed fit goes on with the same result.

After every epoch one file, state.npz, is replaced atomically; it holds weights, optimizer state, history and epoch.
Whatever is random in an epoch (order, augmentation, dropout) is drawn from (seed, epoch), so epoch n + 1 computed from
the state after epoch n is the same whether or not the process died in between: bit for bit on the same machine type,
number of threads and library versions.
"""

import contextlib
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing, write_json
from mribatch.training.fit.augment import augment
from mribatch.training.fit.batch_statistics import statistics_measurer
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import build, grey_to_rgb, logits_model, predictor
from mribatch.training.recipes.catalog import Recipe
from mribatch.training.recipes.schedules import SCHEDULES

FINGERPRINT_FILE, STATE_FILE = "fit.json", "state.npz"
_NO_EPOCH = 0  # augmentation draws from (seed, epoch, image); what stands here in place of an epoch never collides
_LOOK_EVERY = 4  # epochs, where no epoch is chosen and scoring only costs time
_STATISTICS = 1_000_000  # after the places of the dropout layers, which draw from (seed, _NO_EPOCH, epoch, place)


@dataclass(frozen=True)
class Images:
    """One part of the data: uint8 (n, size, size, 1) and its classes, int64 (n,)."""

    pixels: NDArray[uint8]
    labels: NDArray[int64]
    name: str = "validation"  # for people: what the images are, where they are scored while the fit runs


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of the history. Training figures are of augmented slices with dropout, as they were learned."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy, nats
    accuracy: float
    val_loss: float  # of the images that were watched, see prepare.watched_images; not a number where none were scored
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """The network with the weights of the best epoch."""

    network: Any  # keras.Model
    history: tuple[Epoch, ...]
    best_epoch: int
    resumed_after: int  # epochs that an earlier process had done


Echo = Callable[[str], None]


def fit(
    recipe: Recipe,
    train: Images,
    validation: Images,
    classes: int,
    seed: int,
    work: Path,
    fingerprint: Mapping[str, Any],
    echo: Echo,
    quiet: bool = True,
) -> FitResult:
    """Train from scratch or go on where `work` stands, until patience or epochs run out.

    Raises:
        MribatchError: `work` holds another fit (names the field that differs), or the loss is not finite.
    """
    check_fingerprint(work, fingerprint)
    trainer = _Trainer(recipe, classes, seed, quiet)
    history = trainer.restore(work)
    done = len(history)
    if done > recipe.epochs:
        raise MribatchError(
            f"{work} holds {done} epochs, --epochs asks for {recipe.epochs}", f"give --epochs {done} or more"
        )
    while not _finished(history, recipe):
        history = [*history, trainer.epoch(len(history) + 1, train, validation)]
        best = _best(history, recipe)
        trainer.save(work, history, is_best=best == len(history) and is_evaluated(recipe, best))
        echo(_line(history[-1], recipe, best, validation.name))
    best = _best(history, recipe)
    trainer.load_best(work, best)
    return FitResult(trainer.network, tuple(history), best, done)


def check_fingerprint(work: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write what a fit is made of into a new work folder, or compare it with what a started one says.

    Raises:
        MribatchError: They differ; names the first field and both values.
    """
    path = work / FINGERPRINT_FILE
    if not path.exists():
        if (work / STATE_FILE).exists():
            raise MribatchError(f"{work} holds a fit without its {FINGERPRINT_FILE}", "choose another --work folder")
        write_json(path, fingerprint)
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MribatchError(f"{path} is not JSON: {error}", "choose another --work folder") from error
    asked = json.loads(json.dumps(fingerprint))
    for key in sorted(known.keys() | asked.keys()):
        if known.get(key) != asked.get(key):
            raise MribatchError(
                f"the fit in {work} was started with {key} = {known.get(key)}, this command has {asked.get(key)}",
                "repeat the first command, or choose another --work folder",
            )


def _best(history: list[Epoch], recipe: Recipe) -> int:
    """The first epoch with the lowest validation loss, or the last one where the recipe keeps that."""
    return len(history) if recipe.keep == "last" else min(history, key=lambda row: row.val_loss).epoch


def is_evaluated(recipe: Recipe, epoch: int) -> bool:
    """Whether the validation part is scored after that epoch: always where it chooses, else now and then, to look."""
    return recipe.keep == "best" or epoch == recipe.epochs or epoch % _LOOK_EVERY == 0


def _finished(history: list[Epoch], recipe: Recipe) -> bool:
    waited = len(history) - _best(history, recipe) if history else 0
    return bool(history) and (len(history) >= recipe.epochs or waited >= recipe.patience)


def _line(row: Epoch, recipe: Recipe, best: int, watched: str) -> str:
    scored = f"{watched} loss {row.val_loss:.4f}, accuracy {row.val_accuracy:.4f}; "
    chosen = f"best epoch {best}; " if recipe.keep == "best" else ""
    return (
        f"epoch {row.epoch}/{recipe.epochs}: loss {row.loss:.4f}, accuracy {row.accuracy:.4f}; "
        f"{'' if math.isnan(row.val_loss) else scored}{chosen}{row.seconds:.1f} s"
    )


def optimizer(recipe: Recipe) -> Any:
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019); the rate is set at every step."""
    _, keras = load_keras()
    clipnorm = recipe.clipnorm or None
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.learning_rate, clipnorm=clipnorm)
    made = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, clipnorm=clipnorm)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


def smoothed_cross_entropy(smoothing: float) -> Callable[[Any, Any], Any]:
    """Labels (n,) and logits (n, classes) -> losses (n,); `smoothing` of the truth is spread over all classes."""
    tensorflow, _ = load_keras()

    def losses(labels: Any, logits: Any) -> Any:
        if not smoothing:
            return tensorflow.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        classes = logits.shape[-1]
        truth = tensorflow.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
        return tensorflow.nn.softmax_cross_entropy_with_logits(labels=truth, logits=logits)

    return losses


def cross_entropy(logits: NDArray[float32], labels: NDArray[int64]) -> float:
    """Mean of -log softmax(logits)[label], nats, in float64."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    return float((np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(len(labels)), labels]).mean())


class _Trainer:
    """Network and optimizer, what one epoch does to them, and their state on disk."""

    def __init__(self, recipe: Recipe, classes: int, seed: int, quiet: bool) -> None:
        _, keras = load_keras()
        self._recipe = recipe
        self._seed = seed
        self._quiet = quiet
        self.network = build(recipe, classes, seed)
        self._optimizer = optimizer(recipe)
        self._optimizer.build(self.network.trainable_variables)
        learned = self.network.trainable_variables if recipe.weights_average else []
        self._averages = [keras.Variable(variable.numpy(), trainable=False) for variable in learned]
        self._step = self._compiled_step()
        self._predict = predictor(self.network)
        self._measure = statistics_measurer(self.network) if recipe.clean_statistics else None

    def epoch(self, number: int, train: Images, validation: Images) -> Epoch:
        started = time.perf_counter()
        self._seed_dropout(number)
        loss, accuracy = self._learn(number, train)
        seen = is_evaluated(self._recipe, number) and len(validation.labels) > 0
        with self._evaluated():
            if self._measure is not None and is_evaluated(self._recipe, number):
                self._measure(train.pixels, np.random.default_rng((self._seed, _NO_EPOCH, number, _STATISTICS)))
            val_loss, val_accuracy = self._score(validation) if seen else (math.nan, math.nan)
        row = Epoch(
            epoch=number,
            loss=loss,
            accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.perf_counter() - started,
        )
        if not np.isfinite([loss, val_loss] if seen else [loss]).all():
            raise MribatchError(f"the loss of epoch {number} is not a finite number", "use a lower learning rate")
        return row

    def _learn(self, number: int, train: Images) -> tuple[float, float]:
        """One pass over the training part: mean loss and accuracy of what was learned from."""
        recipe, count = self._recipe, len(train.labels)
        order = np.random.default_rng((self._seed, _NO_EPOCH, number)).permutation(count).astype(int64)
        share, schedule = recipe.batch / count, SCHEDULES[recipe.schedule]
        loss = hits = 0.0
        for start in self._with_progress(range(0, count, recipe.batch), number):
            chosen = order[start : start + recipe.batch]
            pixels = augment(train.pixels[chosen], chosen, recipe.augmentation, self._seed, number)
            done = (number - 1 + start / count) / recipe.epochs  # of the whole fit
            rate = recipe.learning_rate * schedule(done)
            steps = round((number - 1 + start / count) / share)
            decay = min(recipe.weights_average, (1 + steps) / (10 + steps))  # the first weights are soon forgotten
            batch_loss, batch_hits = self._step(pixels, train.labels[chosen], np.float32(rate), np.float32(decay))
            loss += float(batch_loss)
            hits += float(batch_hits)
        return loss / count, hits / count

    def _score(self, validation: Images) -> tuple[float, float]:
        """Loss and accuracy of the validation part."""
        logits = self._predict(validation.pixels)
        accuracy = float((logits.argmax(axis=1) == validation.labels).mean())
        return cross_entropy(logits, validation.labels), accuracy

    @contextlib.contextmanager
    def _evaluated(self) -> Iterator[None]:
        """The averages of the weights in the weights' place."""
        learned = self.network.trainable_variables if self._averages else []
        before = [variable.numpy() for variable in learned]
        for variable, average in zip(learned, self._averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(learned, before, strict=True):
                variable.assign(value)

    def _with_progress(self, starts: range, number: int) -> Iterable[int]:
        from tqdm import tqdm

        disable = True if self._quiet else None  # None: only where stderr is no terminal
        shown: Iterable[int] = tqdm(starts, f"epoch {number}", unit="batch", delay=2, leave=False, disable=disable)
        return shown

    def save(self, work: Path, history: list[Epoch], is_best: bool) -> None:
        """Keep the state after the last epoch of `history`; the best epoch's weights lie in a file of their own."""
        if is_best:
            with self._evaluated():
                _write(work / _best_file(len(history)), _arrays("network", self.network.variables))
        state = _arrays("network", self.network.variables) | _arrays("optimizer", self._optimizer.variables)
        state |= _arrays("average", self._averages)
        _write(work / STATE_FILE, state | {"history": np.array(json.dumps([asdict(row) for row in history]))})
        for old in work.glob(_best_file("*")):
            if old.name != _best_file(_best(history, self._recipe)):
                old.unlink()

    def restore(self, work: Path) -> list[Epoch]:
        if not (work / STATE_FILE).exists():
            return []
        state = _read(work / STATE_FILE)
        _assign("network", self.network.variables, state, work)
        _assign("optimizer", self._optimizer.variables, state, work)
        _assign("average", self._averages, state, work)
        return [Epoch(**row) for row in json.loads(str(state["history"]))]

    def load_best(self, work: Path, epoch: int) -> None:
        _assign("network", self.network.variables, _read(work / _best_file(epoch)), work)

    def _compiled_step(self) -> Any:
        tensorflow, _ = load_keras()
        inner, optimizer, averages = logits_model(self.network), self._optimizer, self._averages
        size, losses_of = self._recipe.size, smoothed_cross_entropy(self._recipe.label_smoothing)
        number = tensorflow.TensorSpec((), tensorflow.float32)
        pixels = tensorflow.TensorSpec((None, size, size, 1), tensorflow.uint8)
        signature = [pixels, tensorflow.TensorSpec((None,), tensorflow.int64), number, number]

        # jit_compile=False: XLA is about five times slower on a CPU
        @tensorflow.function(  # type: ignore[untyped-decorator]
            input_signature=signature, autograph=False, jit_compile=False
        )
        def step(images: Any, labels: Any, rate: Any, decay: Any) -> Any:
            with tensorflow.GradientTape() as tape:
                logits = inner(grey_to_rgb(images), training=True)
                losses = losses_of(labels, logits)
                mean = tensorflow.reduce_mean(losses)
            optimizer.learning_rate = rate
            optimizer.apply(tape.gradient(mean, inner.trainable_variables), inner.trainable_variables)
            for average, variable in zip(averages, inner.trainable_variables, strict=bool(averages)):
                average.assign(average + (1 - decay) * (variable - average))
            hits = tensorflow.equal(tensorflow.argmax(logits, axis=1), labels)
            return tensorflow.reduce_sum(losses), tensorflow.reduce_sum(tensorflow.cast(hits, tensorflow.float32))

        return step

    def _seed_dropout(self, epoch: int) -> None:
        """Every Keras layer that draws numbers keeps its generator's state in a variable; set them all."""
        states = [variable for variable in self.network.variables if variable.path.endswith("seed_generator_state")]
        for position, variable in enumerate(states):
            draw = np.random.default_rng((self._seed, _NO_EPOCH, epoch, position + 1))
            variable.assign(draw.integers(0, 2**32, tuple(variable.shape), dtype=np.uint32))


def _best_file(epoch: int | str) -> str:
    return f"best-{epoch}.npz"


def _arrays(group: str, variables: list[Any]) -> dict[str, NDArray[Any]]:
    return {f"{group}/{position}": variable.numpy() for position, variable in enumerate(variables)}


def _assign(group: str, variables: list[Any], arrays: Mapping[str, NDArray[Any]], work: Path) -> None:
    for position, variable in enumerate(variables):
        array = arrays.get(f"{group}/{position}")
        if array is None or array.shape != tuple(variable.shape):
            raise MribatchError(f"the state in {work} does not fit the network", "choose another --work folder")
        variable.assign(array)


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with publishing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MribatchError(f"cannot read {path}: {error}", "choose another --work folder") from error

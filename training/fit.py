"""The fit: epochs, early stopping, and a work folder from which a killed fit goes on with the same result.

After every epoch one file, state.npz, is replaced atomically; it holds weights, optimizer state, history and epoch.
Whatever is random in an epoch (order, augmentation, dropout) is drawn from (seed, epoch), so epoch n + 1 computed from
the state after epoch n is the same whether or not the process died in between: bit for bit on the same machine type,
number of threads and library versions.
"""

import json
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.errors import MribatchError
from mribatch.files import publishing, write_json
from mribatch.training.augment import augment
from mribatch.training.batch_statistics import statistics_measurer
from mribatch.training.frameworks import load_keras
from mribatch.training.networks import build, grey_to_rgb, logits_model, predictor
from mribatch.training.recipes import Recipe

FINGERPRINT_FILE, STATE_FILE = "fit.json", "state.npz"
_NO_EPOCH = 0  # augmentation draws from (seed, epoch, image); what stands here in place of an epoch never collides
_STATISTICS = 1_000_000  # after the places of the dropout layers, which draw from (seed, _NO_EPOCH, epoch, place)


@dataclass(frozen=True)
class Images:
    """One part of the data: uint8 (n, size, size, 1) and its classes, int64 (n,)."""

    pixels: NDArray[uint8]
    labels: NDArray[int64]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of the history. Training figures are of augmented slices with dropout, as they were learned."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy, nats
    accuracy: float
    val_loss: float
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
    recipe: Recipe, train: Images, validation: Images, classes: int, seed: int, work: Path,
    fingerprint: Mapping[str, Any], echo: Echo, quiet: bool = True,
) -> FitResult:  # fmt: skip
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
        best = _best(history)
        trainer.save(work, history, is_best=best == len(history))
        echo(_line(history[-1], recipe, best))
    best = _best(history)
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


def _best(history: list[Epoch]) -> int:
    """The first epoch with the lowest validation loss."""
    return min(history, key=lambda row: row.val_loss).epoch


def _finished(history: list[Epoch], recipe: Recipe) -> bool:
    return bool(history) and (len(history) >= recipe.epochs or len(history) - _best(history) >= recipe.patience)


def _line(row: Epoch, recipe: Recipe, best: int) -> str:
    return (
        f"epoch {row.epoch}/{recipe.epochs}: loss {row.loss:.4f}, accuracy {row.accuracy:.4f}; validation loss "
        f"{row.val_loss:.4f}, accuracy {row.val_accuracy:.4f}; best epoch {best}; {row.seconds:.1f} s"
    )


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
        self._optimizer = keras.optimizers.Adam(recipe.learning_rate)
        self._optimizer.build(self.network.trainable_variables)
        self._step = self._compiled_step()
        self._predict = predictor(self.network)
        self._measure = statistics_measurer(self.network) if recipe.clean_statistics else None

    def epoch(self, number: int, train: Images, validation: Images) -> Epoch:
        started = time.perf_counter()
        self._seed_dropout(number)
        order = np.random.default_rng((self._seed, _NO_EPOCH, number)).permutation(len(train.labels)).astype(int64)
        loss = hits = 0.0
        for start in self._with_progress(range(0, len(order), self._recipe.batch), number):
            chosen = order[start : start + self._recipe.batch]
            pixels = augment(train.pixels[chosen], chosen, self._recipe.augmentation, self._seed, number)
            batch_loss, batch_hits = self._step(pixels, train.labels[chosen])
            loss += float(batch_loss)
            hits += float(batch_hits)
        if self._measure is not None:
            self._measure(train.pixels, np.random.default_rng((self._seed, _NO_EPOCH, number, _STATISTICS)))
        logits = self._predict(validation.pixels)
        row = Epoch(
            epoch=number,
            loss=loss / len(order),
            accuracy=hits / len(order),
            val_loss=cross_entropy(logits, validation.labels),
            val_accuracy=float((logits.argmax(axis=1) == validation.labels).mean()),
            seconds=time.perf_counter() - started,
        )
        if not np.isfinite([row.loss, row.val_loss]).all():
            raise MribatchError(f"the loss of epoch {number} is not a finite number", "use a lower learning rate")
        return row

    def _with_progress(self, starts: range, number: int) -> Iterable[int]:
        from tqdm import tqdm

        disable = True if self._quiet else None  # None: only where stderr is no terminal
        shown: Iterable[int] = tqdm(starts, f"epoch {number}", unit="batch", delay=2, leave=False, disable=disable)
        return shown

    def save(self, work: Path, history: list[Epoch], is_best: bool) -> None:
        """Keep the state after the last epoch of `history`; the best epoch's weights lie in a file of their own."""
        weights = _arrays("network", self.network.variables)
        if is_best:
            _write(work / _best_file(len(history)), weights)
        rows = np.array(json.dumps([asdict(row) for row in history]))
        _write(work / STATE_FILE, {**weights, **_arrays("optimizer", self._optimizer.variables), "history": rows})
        for old in work.glob(_best_file("*")):
            if old.name != _best_file(_best(history)):
                old.unlink()

    def restore(self, work: Path) -> list[Epoch]:
        if not (work / STATE_FILE).exists():
            return []
        state = _read(work / STATE_FILE)
        _assign("network", self.network.variables, state, work)
        _assign("optimizer", self._optimizer.variables, state, work)
        return [Epoch(**row) for row in json.loads(str(state["history"]))]

    def load_best(self, work: Path, epoch: int) -> None:
        _assign("network", self.network.variables, _read(work / _best_file(epoch)), work)

    def _compiled_step(self) -> Any:
        tensorflow, _ = load_keras()
        inner, optimizer, size = logits_model(self.network), self._optimizer, self._recipe.size
        pixels = tensorflow.TensorSpec((None, size, size, 1), tensorflow.uint8)
        signature = [pixels, tensorflow.TensorSpec((None,), tensorflow.int64)]

        # jit_compile=False: XLA is about five times slower on a CPU
        @tensorflow.function(  # type: ignore[untyped-decorator]
            input_signature=signature, autograph=False, jit_compile=False
        )
        def step(images: Any, labels: Any) -> Any:
            with tensorflow.GradientTape() as tape:
                logits = inner(grey_to_rgb(images), training=True)
                losses = tensorflow.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
                mean = tensorflow.reduce_mean(losses)
            optimizer.apply(tape.gradient(mean, inner.trainable_variables), inner.trainable_variables)
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

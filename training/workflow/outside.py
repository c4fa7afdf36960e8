"""A network that was fitted outside mribatch, in place of a fit: its weights in our own layers, its history checked.

Every figure is then measured here, by the same code as that of an own fit. What cannot be checked here is which images
a network learned from; that its maker held out exactly those of its fold can, and is.
"""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.files import sha256_of_file
from mribatch.training.data.images import DataSet
from mribatch.training.data.split import PARTS
from mribatch.training.export.keras_file import load_network
from mribatch.training.fit.history import Epoch
from mribatch.training.fit.loop import FitInputs, FitResult
from mribatch.training.fit.losses import cross_entropy
from mribatch.training.fit.outside import FITS_FILE, OutsideFit, OutsideFolder, read_outside_fits
from mribatch.training.networks.build import build, predict_logits
from mribatch.training.recipes.recipe import NO_WEIGHTS, Recipe
from mribatch.training.work_folder.summary import OutsideFacts
from mribatch.training.workflow.options import TrainOptions

_FIX = "give --fitted networks that were fitted on this division of these images"
_FIX_WEIGHTS = "save the weights of the network that the recipe and its --set options describe"


def find_outside_fits(options: TrainOptions) -> OutsideFolder | None:
    """Return the folder of --fitted; None without it.

    Raises:
        MribatchError: Its fits.json does not fit, or the recipe chooses its epoch.
    """
    if options.fitted is None:
        return None
    if options.chosen_recipe.keep == "best":
        problem = f"'{options.recipe.name}' chooses its epoch, which cannot be checked for a fit from elsewhere"
        raise OptionError(problem, "give --set keep=last, if the last epoch was kept")
    return read_outside_fits(options.fitted)


def describe_outside(options: TrainOptions) -> OutsideFacts | None:
    """Return what the summary and the bundle say about fits from elsewhere; None for own ones."""
    outside = find_outside_fits(options)
    if outside is None:
        return None
    return OutsideFacts(made_by=outside.content.made_by, notes=outside.content.notes)


def load_outside_fit(
    outside: OutsideFolder, name: str, inputs: FitInputs, data: DataSet, parts: NDArray[np.int64]
) -> FitResult:
    """Return the network of that name as if it had been fitted here.

    Raises:
        MribatchError: The file is not the one that fits.json describes, belongs to another network, or was fitted on
            other images.
    """
    described, path = outside.find(name), outside.folder / outside.find(name).file
    not_learned = np.not_equal(parts, PARTS.index("train"))
    _check_held_out(outside, name, {data.paths[place] for place in np.flatnonzero(not_learned)})
    if _hash(path) != described.sha256:
        raise MribatchError(f"{path} is not the file whose sha256 is in {FITS_FILE}", _FIX)
    if len(described.history) != inputs.recipe.epochs:
        problem = f"the fit '{name}' has {len(described.history)} epochs, the recipe {inputs.recipe.epochs}"
        raise MribatchError(problem, f"give --epochs {len(described.history)}, if that is how it was fitted")
    network = build(_make_plain(inputs.recipe), inputs.classes, inputs.seed)
    _assign(network, read_weights(path, network), path)
    history = _read_history(described)
    if len(inputs.watched.labels):
        logits = predict_logits(network, inputs.watched.pixels)
        accuracy = float((logits.argmax(axis=1) == inputs.watched.labels).mean())
        loss = cross_entropy(logits, inputs.watched.labels)
        history = (*history[:-1], replace(history[-1], val_loss=loss, val_accuracy=accuracy))
    return FitResult(network=network, history=history, best_epoch=len(history), resumed_after=0)


def read_weights(path: Path, network: Any) -> dict[str, NDArray[Any]]:
    """Read "LAYER/POSITION" -> array, LAYER as our network calls it.

    Args:
        path: A .keras file, opened in safe mode, whose layers are ours in the same order; or an .npz file of arrays
            with these names.
        network: Ours.

    Raises:
        MribatchError: It is neither.
    """
    if path.suffix != ".npz":
        names = [layer.name for layer in network.layers if layer.weights]  # Keras numbers layers without a name anew
        return {name: variable.numpy() for name, variable in _name_variables(load_network(path), names).items()}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MribatchError(f"cannot read {path}: {error}", "give an .npz or a .keras file of weights") from error


def _check_held_out(outside: OutsideFolder, name: str, wanted: set[str]) -> None:
    stated = set(outside.find(name).held_out)
    if stated == wanted:
        return
    known = len(wanted & stated)
    problem = (
        f"the fit '{name}' in {outside.folder / FITS_FILE} held out {len(stated)} images, {known} of them among the "
        f"{len(wanted)} that this division holds out"
    )
    raise MribatchError(problem, _FIX)


def _hash(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise MribatchError(f"cannot read {path}: {error.strerror or error}", _FIX) from error


def _make_plain(recipe: Recipe) -> Recipe:
    """Return the recipe without what only matters to a fit, so that no initial weights are looked for."""
    return replace(recipe, weights=NO_WEIGHTS, frozen_blocks=0)


def _name_variables(network: Any, names: Sequence[str] = ()) -> Mapping[str, Any]:
    """Name the weights "LAYER/POSITION"; the states of random generators are not weights.

    `names` are given to the layers that have variables, in their order; further layers keep their own.
    """
    named: dict[str, Any] = {}
    layers = [layer for layer in network.layers if layer.weights]
    for place, layer in enumerate(layers):
        weights = (variable for variable in layer.weights if not variable.path.endswith("seed_generator_state"))
        name = names[place] if place < len(names) else layer.name
        named |= {f"{name}/{position}": variable for position, variable in enumerate(weights)}
    return named


def _assign(network: Any, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    variables = _name_variables(network)
    different = sorted(variables.keys() ^ arrays.keys())
    if different:
        where = "has no" if different[0] in variables else "has, and this network has not,"
        raise MribatchError(f"{path} belongs to another network: it {where} '{different[0]}'", _FIX_WEIGHTS)
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            problem = f"'{name}' in {path} has the shape {arrays[name].shape}, the network's is {tuple(variable.shape)}"
            raise MribatchError(problem, _FIX_WEIGHTS)
        if not np.isfinite(arrays[name]).all():
            raise MribatchError(f"'{name}' in {path} holds NaN or infinity", _FIX_WEIGHTS)
        variable.assign(arrays[name])


def _read_history(described: OutsideFit) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            epoch=row.epoch,
            loss=row.loss,
            accuracy=row.accuracy,
            val_loss=math.nan,
            val_accuracy=math.nan,
            seconds=row.seconds,
        )
        for row in described.history
    )

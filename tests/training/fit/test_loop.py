"""A fit that is stopped anywhere goes on with the same result, and a work folder of another fit is refused."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.errors import MribatchError
from mribatch.training.data.images import Images
from mribatch.training.fit.checkpoints import FINGERPRINT_FILE, STATE_FILE, Checkpoints
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.loop import FitInputs, FitResult, fit
from mribatch.training.fit.losses import cross_entropy, smoothed_cross_entropy
from mribatch.training.fit.trainer import Trainer, make_optimizer
from mribatch.training.networks.build import NETWORKS, build, predict_logits
from mribatch.training.recipes.augmentation import Augmentation
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.recipes.schedules import SCHEDULES
from tests.training.toy import DyingCheckpoints, Killed, tiny_network, tiny_recipe

RANDOM = np.random.default_rng(0)


def images(count: int) -> Images:
    labels = RANDOM.integers(0, 3, count)
    pixels = RANDOM.integers(0, 80, (count, 8, 8, 1)) + labels[:, None, None, None] * 60
    return Images(pixels.astype(np.uint8), labels)


TRAIN, VALIDATION = images(30), images(12)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)


def run(
    work: Path,
    recipe: Recipe | None = None,
    seed: int = 1,
    *,
    data_sha256: str = "aa",
    watched: Images = VALIDATION,
    writes: int | None = None,
) -> FitResult:
    """Fit in a folder; with `writes`, the fit is killed after so many files."""
    work.mkdir(exist_ok=True)
    chosen = recipe if recipe is not None else tiny_recipe()
    fingerprint = FitFingerprint(
        recipe=chosen.facts(),
        classes=("a", "b", "c"),
        data_sha256=data_sha256,
        parts_sha256="00",
        seed=seed,
        versions={"keras": "3"},
    )
    inputs = FitInputs(recipe=chosen, train=TRAIN, watched=watched, classes=3, seed=seed, fingerprint=fingerprint)
    checkpoints = Checkpoints(work) if writes is None else DyingCheckpoints(work, writes)
    return fit(inputs, checkpoints, lambda line: None)


CYCLE = {
    "schedule": "one_cycle",
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "label_smoothing": 0.1,
    "weights_average": 0.9,
    "keep": "last",
    "clipnorm": 0.5,
}


def numbers(result: FitResult) -> list[tuple[float, ...]]:
    rows = [(row.epoch, row.loss, row.accuracy, row.val_loss, row.val_accuracy) for row in result.history]
    return [tuple(-1.0 if np.isnan(value) else value for value in row) for row in rows]


def same_weights(first: FitResult, second: FitResult) -> bool:
    pairs = zip(first.network.weights, second.network.weights, strict=True)
    return all((a.numpy() == b.numpy()).all() for a, b in pairs)


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    result = run(tmp_path / "a", tiny_recipe(epochs=12, patience=12))
    losses = [row.val_loss for row in result.history]
    assert len(losses) == 12 and losses[-1] < losses[0]
    assert losses[result.best_epoch - 1] == min(losses)
    again = predict_logits(result.network, VALIDATION.pixels)
    assert cross_entropy(again, VALIDATION.labels) == min(losses)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(tmp_path: Path) -> None:
    first, again, other = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", seed=2)
    assert numbers(first) == numbers(again) and same_weights(first, again)
    assert numbers(first) != numbers(other)


@pytest.mark.parametrize(
    ("writes", "change"), [*((writes, {}) for writes in range(0, 9, 2)), (0, CYCLE), (2, CYCLE), (4, CYCLE)]
)
def test_stopped_before_any_write_it_resumes_with_the_same_result(
    tmp_path: Path, writes: int, change: dict[str, Any]
) -> None:
    recipe = tiny_recipe(**change)
    whole = run(tmp_path / "whole", recipe)
    with contextlib.suppress(Killed):
        run(tmp_path / "stopped", recipe, writes=writes)
    resumed = run(tmp_path / "stopped", recipe)
    assert numbers(resumed) == numbers(whole) and same_weights(resumed, whole)
    assert resumed.best_epoch == whole.best_epoch


def test_a_finished_fit_is_not_trained_further(tmp_path: Path) -> None:
    whole = run(tmp_path / "a")
    again = run(tmp_path / "a")
    assert again.resumed_after == 4 and numbers(again) == numbers(whole) and same_weights(again, whole)


def test_a_fit_may_be_prolonged(tmp_path: Path) -> None:
    short = run(tmp_path / "a", tiny_recipe(epochs=2))
    longer = run(tmp_path / "a", tiny_recipe(epochs=4))
    assert longer.resumed_after == 2 and numbers(longer)[:2] == numbers(short)
    assert numbers(longer) == numbers(run(tmp_path / "b"))


def test_a_fit_is_not_shortened_after_the_fact(tmp_path: Path) -> None:
    run(tmp_path / "a")
    with pytest.raises(MribatchError, match="holds 4 epochs, --epochs asks for 2"):
        run(tmp_path / "a", tiny_recipe(epochs=2))


def test_it_stops_when_patience_runs_out(tmp_path: Path) -> None:
    result = run(tmp_path / "a", tiny_recipe(epochs=40, patience=2, learning_rate=0.5))
    assert len(result.history) == result.best_epoch + 2 < 40


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rate": 0.02}, r"recipe.learning_rate = 0.01, this command has 0.02"),
        ({"batch": 5}, r"recipe.batch = 4, this command has 5"),
        ({"options": {"dropout": 0.4}}, r"recipe.options.dropout = 0.3, this command has 0.4"),
    ],
)
def test_another_recipe_is_refused_by_name(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    run(tmp_path / "a", tiny_recipe(epochs=1))
    with pytest.raises(MribatchError, match=f"was started with {field}"):
        run(tmp_path / "a", tiny_recipe(epochs=1, **change))


def test_other_data_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path / "a", tiny_recipe(epochs=1), data_sha256="aa")
    with pytest.raises(MribatchError, match="data_sha256 = aa, this command has bb"):
        run(tmp_path / "a", tiny_recipe(epochs=1), data_sha256="bb")


def test_a_state_without_its_fingerprint_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "a", tiny_recipe(epochs=1))
    (tmp_path / "a" / FINGERPRINT_FILE).unlink()
    with pytest.raises(MribatchError, match="holds a fit without its fit.json"):
        run(tmp_path / "a", tiny_recipe(epochs=1))


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "a", tiny_recipe(epochs=1))
    path = tmp_path / "a" / STATE_FILE
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MribatchError, match="cannot read .*state.npz"):
        run(tmp_path / "a", tiny_recipe(epochs=1))


def test_a_loss_that_is_not_finite_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        MribatchError, match="the loss of epoch 1 is not a finite number. Fix: use a lower learning rate"
    ):
        run(tmp_path / "a", tiny_recipe(learning_rate=1e30))


def test_dropout_differs_from_epoch_to_epoch_and_step_to_step(tmp_path: Path) -> None:
    """With a rate of zero for the weights only dropout and augmentation move the training loss."""
    plain = tiny_recipe(learning_rate=0.0, augmentation=Augmentation(), options={"dropout": 0.5})
    losses = [row.loss for row in run(tmp_path / "a", plain).history]
    assert len(set(losses)) == len(losses)


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype=np.float32)) + 300
    expected = -(np.log(0.5) + np.log(0.1)) / 2
    assert cross_entropy(logits, np.array([0, 1])) == pytest.approx(expected, rel=1e-4)


def test_the_last_epoch_is_kept_where_none_is_chosen(tmp_path: Path) -> None:
    result = run(tmp_path / "a", tiny_recipe(epochs=5, learning_rate=0.3, **CYCLE | {"weights_average": 0.0}))
    assert result.best_epoch == len(result.history) == 5
    scored = [not np.isnan(row.val_loss) for row in result.history]
    assert scored == [False, False, False, True, True]
    again = predict_logits(result.network, VALIDATION.pixels)
    assert cross_entropy(again, VALIDATION.labels) == result.history[-1].val_loss


def test_without_a_validation_part_the_last_epoch_is_kept_unscored(tmp_path: Path) -> None:
    recipe, work = tiny_recipe(epochs=4, keep="last"), tmp_path / "a"
    result = run(work, recipe, watched=Images(TRAIN.pixels[:0], TRAIN.labels[:0]))
    assert all(np.isnan([row.val_loss, row.val_accuracy]).all() for row in result.history)
    assert np.isfinite(predict_logits(result.network, VALIDATION.pixels)).all()


def test_a_fit_on_a_schedule_may_not_be_prolonged(tmp_path: Path) -> None:
    run(tmp_path / "a", tiny_recipe(epochs=2, **CYCLE))
    with pytest.raises(MribatchError, match="was started with recipe.epochs = 2, this command has 3"):
        run(tmp_path / "a", tiny_recipe(epochs=3, **CYCLE))


def test_what_is_kept_is_the_average_of_the_weights() -> None:
    """The averages computed again from every step's weights, by the formula."""
    recipe = tiny_recipe(epochs=2, **CYCLE)
    trainer = Trainer(recipe, 3, 1)
    step, seen, decays = trainer.step, [trainer.network.trainable_variables[0].numpy()], []

    def spied(pixels: Any, labels: Any, rate: Any, decay: Any) -> Any:
        result = step(pixels, labels, rate, decay)
        seen.append(trainer.network.trainable_variables[0].numpy())
        decays.append(float(decay))
        return result

    trainer.step = spied
    trainer.run_epoch(1, TRAIN, VALIDATION)
    average = seen[0]
    for decay, weights in zip(decays, seen[1:], strict=True):
        average = average * decay + weights * (1 - decay)
    assert decays[0] == pytest.approx(0.1) and decays == sorted(decays) and max(decays) <= 0.9
    assert np.allclose(trainer.averages[0].numpy(), average, atol=1e-6)
    with trainer.averaged_weights():
        assert (trainer.network.trainable_variables[0].numpy() == trainer.averages[0].numpy()).all()
    assert (trainer.network.trainable_variables[0].numpy() == seen[-1]).all()


def test_rates_follow_the_schedule_over_the_whole_fit() -> None:
    recipe = tiny_recipe(epochs=2, **CYCLE)
    trainer = Trainer(recipe, 3, 1)
    step, rates = trainer.step, []

    def spied(pixels: Any, labels: Any, rate: Any, decay: Any) -> Any:
        rates.append(float(rate))
        return step(pixels, labels, rate, decay)

    trainer.step = spied
    for number in (1, 2):
        trainer.run_epoch(number, TRAIN, VALIDATION)
    expected = [0.01 * SCHEDULES["one_cycle"](done / 60) for done in [*range(0, 30, 4), *range(30, 60, 4)]]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_smoothed_cross_entropy_by_hand() -> None:
    logits, labels = np.log(np.array([[0.5, 0.3, 0.2]], dtype=np.float32)), np.array([0])
    exact = -(0.8 + 0.2 / 3) * np.log(0.5) - 0.2 / 3 * (np.log(0.3) + np.log(0.2))
    assert smoothed_cross_entropy(0.2)(labels, logits).numpy()[0] == pytest.approx(exact, rel=1e-5)
    assert smoothed_cross_entropy(0.0)(labels, logits).numpy()[0] == pytest.approx(-np.log(0.5), rel=1e-5)


def test_weight_decay_shrinks_kernels_and_spares_biases_and_normalisation(tmp_path: Path) -> None:
    made = make_optimizer(tiny_recipe(optimizer="adamw", weight_decay=0.5))
    network = build(tiny_recipe(), 3, 1)
    made.build(network.trainable_variables)
    before = {variable.path: variable.numpy() for variable in network.trainable_variables}
    made.learning_rate = 0.1
    made.apply([variable * 0 for variable in network.trainable_variables], network.trainable_variables)
    for variable in network.trainable_variables:
        factor = 0.95 if variable.path.endswith("kernel") else 1.0
        assert np.allclose(variable.numpy(), before[variable.path] * factor, atol=1e-7), variable.path
    assert make_optimizer(tiny_recipe(clipnorm=1.0)).clipnorm == 1.0
    assert make_optimizer(tiny_recipe()).clipnorm is None


def test_the_mean_of_the_last_epochs_is_kept(tmp_path: Path) -> None:
    """Of the weights after the epochs 3 and 4 of 4; before them, an epoch is scored by its own weights."""
    recipe = tiny_recipe(epochs=4, keep="last", average_epochs=2)
    trainer, ends = Trainer(recipe, 3, 1), []
    for number in range(1, 5):
        trainer.run_epoch(number, TRAIN, VALIDATION)
        ends.append(trainer.network.trainable_variables[0].numpy())
        with trainer.averaged_weights(number):
            shown = trainer.network.trainable_variables[0].numpy()
        expected = np.mean(ends[2:], axis=0) if number > 2 else ends[-1]
        assert np.allclose(shown, expected, atol=1e-6), number
    whole = run(tmp_path / "a", recipe)
    assert np.allclose(whole.network.trainable_variables[0].numpy(), np.mean(ends[2:], axis=0), atol=1e-5)
    with pytest.raises(Killed):
        run(tmp_path / "b", recipe, writes=3)
    assert numbers(run(tmp_path / "b", recipe)) == numbers(whole)


def test_mixed_slices_are_learned_and_the_fit_resumes(tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=2, keep="last", mixup_share=0.4, cutmix_share=0.4)
    whole = run(tmp_path / "a", recipe)
    with pytest.raises(Killed):
        run(tmp_path / "b", recipe, writes=1)
    assert numbers(run(tmp_path / "b", recipe)) == numbers(whole)

"""A `.keras` file is data: nothing in it runs, nothing in it fills the memory, and each refusal is one line with a fix."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

import h5py
import keras

from mribatch.core.errors import MribatchError
from mribatch.training.export import keras_file
from mribatch.training.export.keras_file import load_in_safe_mode, load_network, read_file_facts
from mribatch.training.export.model_facts import FileFacts
from tests.training import keras_models as models


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.saved(models.small(models.rescaling()), tmp_path_factory.mktemp("good") / "small.keras")


def refused(path: Path) -> MribatchError:
    with pytest.raises(MribatchError) as caught:
        load_network(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return caught.value


def test_a_good_file_is_loaded_with_its_weights(good: Path) -> None:
    import numpy as np

    loaded, made = load_network(good), models.small(models.rescaling())
    for got, expected in zip(loaded.get_weights(), made.get_weights(), strict=True):
        assert (got == expected).all()
    assert np.ptp(loaded.get_layer("convolution").get_weights()[0]) > 0 and not loaded.compiled


def test_facts_of_the_file(good: Path) -> None:
    from hashlib import sha256

    facts = read_file_facts(good)
    assert facts == FileFacts(
        file="small.keras", sha256=sha256(good.read_bytes()).hexdigest(), saved_by_keras=keras.__version__
    )
    assert facts.writer == f"Keras {keras.__version__}"


def test_code_in_a_lambda_layer_is_refused_and_never_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = models.saved(models.lambda_model(touched), tmp_path / "m.keras")
    touched.unlink(missing_ok=True)
    error = refused(path)
    assert error.problem.endswith("its layer 'innocent' (Lambda) carries code, which mribatch never runs")
    assert "standard layer" in error.fix and not touched.exists()


def test_safe_mode_would_refuse_it_too(tmp_path: Path) -> None:
    """The second lock holds by itself, without our own check of the configuration."""
    touched = tmp_path / "touched"
    path = models.saved(models.lambda_model(touched), tmp_path / "m.keras")
    touched.unlink(missing_ok=True)
    with pytest.raises(MribatchError, match="cannot load"):
        load_in_safe_mode(path)
    assert not touched.exists()


def nested_lambda(config: dict[str, Any]) -> None:
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
    models.layer_named(config, "last")["config"]["activation"] = code


def foreign_module(config: dict[str, Any]) -> None:
    models.layer_named(config, "last")["module"] = "os.path"


def function_of_keras(config: dict[str, Any]) -> None:
    code = {"class_name": "function", "config": "get_file", "module": "keras.utils", "registered_name": "get_file"}
    models.layer_named(config, "last")["config"]["activation"] = code


def inner_function_of_keras(config: dict[str, Any]) -> None:
    models.layer_named(config, "last").update(module="keras.src.utils.file_utils", class_name="get_file")


def vocabulary(config: dict[str, Any]) -> None:
    layer = models.layer_named(config, "last")
    layer.update(class_name="StringLookup")
    layer["config"] = {"name": "last", "vocabulary": "/etc/passwd"}


def registered(config: dict[str, Any]) -> None:
    models.layer_named(config, "convolution").update(module=None, class_name="Mine", registered_name="lab>Mine")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (nested_lambda, "(__lambda__) carries code"),
        (foreign_module, "'last' is of the custom class os.path.Dense"),
        (function_of_keras, "'function' is keras.utils.function, which an image classifier has no use for"),
        (inner_function_of_keras, "'last' is keras.src.utils.file_utils.get_file, which an image"),
        (vocabulary, "'last' is keras.layers.StringLookup, which an image classifier has no use for"),
        (registered, "'convolution' is of the custom class lab>Mine"),
        (lambda config: config.update(config="no model"), "does not describe a model"),
        (lambda config: models.layer_named(config, "last")["config"].update(units="many"), "cannot load"),
        (lambda config: models.layer_named(config, "last")["config"].update(units=7), "cannot load"),
        (lambda config: config.update(class_name="Dense"), "cannot load"),
        (lambda config: config.update(class_name="open", module="builtins"), "cannot load"),
    ],
)
def test_a_changed_configuration_is_refused(good: Path, tmp_path: Path, change: Any, problem: str) -> None:
    assert problem in refused(models.with_config(good, tmp_path / "m.keras", change)).problem


def test_a_custom_loss_does_not_matter(good: Path, tmp_path: Path) -> None:
    loss = {"class_name": "function", "config": "my_loss", "module": "lab.losses", "registered_name": "lab>my_loss"}
    path = models.with_config(good, tmp_path / "m.keras", lambda config: config.update(compile_config={"loss": loss}))
    assert load_network(path).name == "small"


def replace_weights(content: bytes) -> Any:
    return lambda parts: parts.update({"model.weights.h5": content})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda parts: parts.pop("config.json"), "it has no config.json"),
        (lambda parts: parts.pop("model.weights.h5"), "it has no model.weights.h5"),
        (lambda parts: parts.update({"assets/x": b""}), "it holds 'assets/x'"),
        (lambda parts: parts.update({"../x": b""}), "it holds '../x'"),
        (lambda parts: parts.update({"config.json": b"{"}), "is not a usable .keras file"),
        (lambda parts: parts.update({"config.json": b"[" * 100_000}), "nested too deeply"),
        (
            lambda parts: parts.update({"config.json": b'{"config": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}"}),
            "too deeply",
        ),
        (replace_weights(b"no hdf5"), "is not a usable .keras file"),
    ],
)
def test_changed_parts_are_refused(good: Path, tmp_path: Path, change: Any, problem: str) -> None:
    assert problem in refused(models.rewritten(good, tmp_path / "m.keras", change)).problem


def test_a_zip_bomb_is_refused_by_its_sizes(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = models.rewritten(
        good, tmp_path / "bomb.keras", replace_weights(b"\0" * (64 << 20)), compression=zipfile.ZIP_DEFLATED
    )
    assert bomb.stat().st_size < 1 << 20
    monkeypatch.setattr(keras.saving, "load_model", lambda *a, **k: pytest.fail("Keras saw it"))
    assert "unpacks from" in refused(bomb).problem


def test_a_configuration_larger_than_allowed_is_refused_unread(good: Path, tmp_path: Path) -> None:
    huge = models.rewritten(good, tmp_path / "m.keras", lambda parts: parts.update({"config.json": b" " * (65 << 20)}))
    assert "its config.json unpacks to 68,157,440 bytes, more than the 67,108,864 allowed" in refused(huge).problem


def test_two_parts_of_one_name_are_refused(good: Path, tmp_path: Path) -> None:
    path = models.rewritten(good, tmp_path / "m.keras", lambda parts: None)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", "{}")
    assert "two parts of it have the same name" in refused(path).problem


def changed_weights(good: Path, path: Path, change: Any) -> Path:
    """A copy whose last layer's bias, at `place` in the HDF5 file, `change(file, place)` has replaced."""

    def apply(parts: dict[str, bytes]) -> None:
        content = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(content, "r+") as weights:
            del weights["layers/dense/vars/1"]
            change(weights, "layers/dense/vars/1")
        parts["model.weights.h5"] = content.getvalue()

    return models.rewritten(good, path, apply)


def test_a_dataset_that_claims_gigabytes_is_refused_unread(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 fills in what was never written: 23 KB that ask for 2.4 GB, and twice that where Keras converts them."""

    def claim(weights: Any, place: str) -> None:
        weights.create_dataset(place, shape=(600_000_000,), dtype="f4", chunks=(1 << 20,), compression="gzip")

    bomb = changed_weights(good, tmp_path / "bomb.keras", claim)
    assert bomb.stat().st_size < 100_000
    monkeypatch.setattr(keras.saving, "load_model", lambda *a, **k: pytest.fail("Keras saw it"))
    assert "claims 2,400,000,744 bytes of weights and has" in refused(bomb).problem


def test_weights_in_other_files_are_refused(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would put what lies on this machine into a bundle that is passed on."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret" * 10)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = [1.0, 2.0, 3.0]

    def external(weights: Any, place: str) -> None:
        weights.create_dataset(place, shape=(3,), dtype="f4", external=[(str(secret), 0, 12)])

    def virtual(weights: Any, place: str) -> None:
        layout = h5py.VirtualLayout(shape=(3,), dtype="f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3,))
        weights.create_virtual_dataset(place, layout)

    def link(weights: Any, place: str) -> None:
        weights[place] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")

    monkeypatch.setattr(keras.saving, "load_model", lambda *a, **k: pytest.fail("Keras saw it"))
    for change, problem in ((external, "in another file"), (virtual, "in another file"), (link, "points to another")):
        assert problem in refused(changed_weights(good, tmp_path / "m.keras", change)).problem


def test_groups_that_hold_themselves_end(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def circle(weights: Any, place: str) -> None:
        weights[place] = weights["layers"]

    monkeypatch.setattr(keras_file, "_MAX_GROUPS_AND_DATASETS", 1000)
    assert "more groups than any model" in refused(changed_weights(good, tmp_path / "m.keras", circle)).problem


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b'{"keras_version": 3}', b'{"keras_version": "3\\n# A better model"}']
)
def test_metadata_that_says_something_else_is_not_believed(good: Path, tmp_path: Path, content: bytes) -> None:
    path = models.rewritten(good, tmp_path / "m.keras", lambda parts: parts.update({"metadata.json": content}))
    assert read_file_facts(path).saved_by_keras == "unknown"


def test_what_the_file_says_does_not_move_the_cursor(good: Path, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        models.layer_named(config, "last").update(class_name="Lambda")
        models.layer_named(config, "last")["config"]["name"] = "all\nis \x1b[2Jwell" + "x" * 100

    assert (
        "its layer 'all\\nis \\x1b[2Jwellxxxx"
        in refused(models.with_config(good, tmp_path / "m.keras", change)).problem
    )


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "m.keras"])
def test_hdf5_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100 + b"model_config")
    error = refused(tmp_path / name)
    assert "is an HDF5 file, Keras' former format, which may carry code" in error.problem
    assert error.fix == "load it in Keras 3 if you trust it, and save it with model.save('model.keras')"


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_model_in_hdf5_is_told_from_weights_alone(tmp_path: Path) -> None:
    model = models.small(models.rescaling())
    model.save(tmp_path / "whole.h5")
    assert "Keras' former format" in refused(tmp_path / "whole.h5").problem
    model.save_weights(tmp_path / "mine.weights.h5")
    error = refused(tmp_path / "mine.weights.h5")
    assert "holds weights alone" in error.problem and "model.load_weights('mine.weights.h5')" in error.fix
    other = models.small(models.rescaling(), seed=2)  # the advice, followed
    other.load_weights(tmp_path / "mine.weights.h5")
    other.save(tmp_path / "model.keras")
    assert load_network(tmp_path / "model.keras").name == "small"


def test_a_file_of_keras_2_is_named(good: Path, tmp_path: Path) -> None:
    def older(parts: dict[str, bytes]) -> None:
        parts["metadata.json"] = b'{"keras_version": "2.15.0", "date_saved": "2024-02-01@10:00:00"}'

    error = refused(models.rewritten(good, tmp_path / "m.keras", older))
    assert "was saved by Keras 2.15.0; mribatch reads files of Keras 3" in error.problem
    assert "tf_keras.models.load_model('m.keras').save('model.h5')" in error.fix

    def module(config: dict[str, Any]) -> None:
        config["module"] = "keras.src.engine.functional"

    assert "was saved by Keras 2;" in refused(models.with_config(good, tmp_path / "n.keras", module)).problem


def test_what_is_no_keras_file_is_named(good: Path, tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("hello")
    assert "is not a .keras file (a zip archive)" in refused(tmp_path / "text.keras").problem
    (tmp_path / "empty.keras").touch()
    assert "is not a .keras file (a zip archive)" in refused(tmp_path / "empty.keras").problem
    (tmp_path / "cut.keras").write_bytes(good.read_bytes()[:2000])
    assert "is not a usable .keras file" in refused(tmp_path / "cut.keras").problem
    (tmp_path / "saved_model").mkdir()
    assert "write it as model.onnx with tf2onnx.convert" in refused(tmp_path / "saved_model").fix
    assert "No such file" in refused(tmp_path / "none.keras").problem
    (tmp_path / "m.zip").write_bytes(good.read_bytes())
    assert "does not end in .keras" in refused(tmp_path / "m.zip").problem


@pytest.mark.parametrize("place", range(8))
def test_damaged_bytes_are_refused_or_loaded_but_never_a_traceback(good: Path, tmp_path: Path, place: int) -> None:
    content = bytearray(good.read_bytes())
    start = len(content) * place // 8
    content[start : start + 40] = bytes(255 - byte for byte in content[start : start + 40])
    (tmp_path / "m.keras").write_bytes(content)
    try:
        load_network(tmp_path / "m.keras")
    except MribatchError as error:
        assert "\n" not in str(error)


def test_metadata_is_not_needed(good: Path, tmp_path: Path) -> None:
    path = models.rewritten(
        good, tmp_path / "m.keras", lambda parts: parts.update({"metadata.json": json.dumps({}).encode()})
    )
    assert load_network(path).name == "small" and read_file_facts(path).saved_by_keras == "unknown"

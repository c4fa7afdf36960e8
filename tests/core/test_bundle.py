import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.bundle import (
    DEFAULT_MODEL,
    FAST_MODEL,
    GOLDEN_FILE,
    MODEL_FILE,
    SPEC_FILE,
    load_bundle,
    shipped_models,
)
from mribatch.core.errors import MribatchError
from tests.make_models import BAD_BUNDLES, CLASSES, make_bad, make_tiny, set_golden

EXPORT_FIX = "Fix: export the model again"
RESTORE_FIX = "Fix: restore the bundle from where it came, or export the model again"

# What is said of each broken bundle; "…" stands for text of the library that read it.
PROBLEMS = {
    "spec_not_json": "{folder}/bundle.json is not JSON: …",
    "spec_deeply_nested": "{folder}/bundle.json is not JSON: …",
    "spec_not_an_object": "the model bundle's field 'bundle.json' does not fit: not a JSON object",
    "newer_format_version": "the model bundle has format version 2, this mribatch reads 1",
    "missing_classes": "the model bundle's field 'classes' does not fit: None",
    "class_name_with_line_break": r"the model bundle's field 'classes' does not fit: a\nb",
    "huge_temperature": f"the model bundle's field 'temperature' does not fit: 1{199 * '0'}",
    "no_model_file": "cannot read {folder}/model.onnx: No such file or directory",
    "no_golden_file": "cannot read {folder}/golden.npz: No such file or directory",
    "wrong_model_hash": "{folder}/model.onnx has sha256 {model}…, its bundle.json says 0000000000000000…",
    "wrong_golden_hash": "{folder}/golden.npz has sha256 {golden}…, its bundle.json says 0000000000000000…",
    "model_not_onnx": "{folder}/model.onnx is not an ONNX model: wire type 4 at byte 1",
    "empty_model": "{folder}/model.onnx is not an ONNX model: the file holds 0 graphs",
    "two_inputs": "{folder}/model.onnx has 2 inputs and 1 outputs, a bundle's graph has 1 and 1",
    "two_outputs": "{folder}/model.onnx has 1 inputs and 2 outputs, a bundle's graph has 1 and 1",
    "wrong_rank": "{folder}/model.onnx takes 'images' uint8 (N, 8, 8), "
    "its bundle.json wants 'images' uint8 (N, 8, 8, 1)",
    "float_input": "{folder}/model.onnx takes 'images' float32 (N, 8, 8, 1), "
    "its bundle.json wants 'images' uint8 (N, 8, 8, 1)",
    "fixed_batch": "{folder}/model.onnx takes 'images' uint8 (1, 8, 8, 1), "
    "its bundle.json wants 'images' uint8 (N, 8, 8, 1)",
    "wrong_size": "{folder}/model.onnx takes 'images' uint8 (N, 16, 16, 1), "
    "its bundle.json wants 'images' uint8 (N, 8, 8, 1)",
    "wrong_class_count": "{folder}/model.onnx gives 'probabilities' float32 (N, 3), "
    "its bundle.json wants 'probabilities' float32 (N, 4)",
    "custom_operator": "{folder}/model.onnx uses custom operators of com.example and defines 0 functions; "
    "only ONNX's own are allowed",
    "local_function": "{folder}/model.onnx uses custom operators and defines 1 functions; only ONNX's own are allowed",
    "external_data": "{folder}/model.onnx keeps 1 tensors in external files; a bundle's graph holds its own weights",
    "external_data_in_attribute": "{folder}/model.onnx keeps 1 tensors in external files; "
    "a bundle's graph holds its own weights",
    "external_data_in_subgraph": "{folder}/model.onnx keeps 2 tensors in external files; "
    "a bundle's graph holds its own weights",
    "nan_golden": "{folder}/golden.npz holds NaN or infinity in 1 of 8 rows of probabilities",
    "golden_of_other_size": "{folder}/golden.npz holds images uint8 (8, 4, 8, 1) and probabilities float32 (8, 4), "
    "which do not fit 8x8 and 4 classes",
    "golden_without_probabilities": "{folder}/golden.npz does not hold golden slices: …",
    "golden_with_pickle": "{folder}/golden.npz does not hold golden slices: Object arrays cannot be loaded …",
    "scalar_golden": "{folder}/golden.npz holds images uint8 () and probabilities float32 (8, 4), "
    "which do not fit 8x8 and 4 classes",
    "golden_not_zip": "{folder}/golden.npz does not hold golden slices: File is not a zip file",
    "golden_zip_bomb": "{folder}/golden.npz does not hold golden slices: "
    "it unpacks to 335544320 bytes, more than the 268435456 allowed",
    "golden_of_huge_array": "{folder}/golden.npz does not hold golden slices: …",
    "golden_damaged": "{folder}/golden.npz does not hold golden slices: …",
}


def test_a_good_bundle_is_read_whole(tiny_bundle: Path) -> None:
    bundle = load_bundle(str(tiny_bundle))
    assert bundle.folder == tiny_bundle
    assert bundle.spec.classes == CLASSES
    assert bundle.sha256 == sha256((tiny_bundle / SPEC_FILE).read_bytes()).hexdigest()
    assert bundle.model == (tiny_bundle / MODEL_FILE).read_bytes()
    assert (bundle.golden.images.shape, bundle.golden.probabilities.shape) == ((8, 8, 8, 1), (8, 4))
    assert np.allclose(bundle.golden.probabilities.sum(axis=1), 1, atol=1e-6)


def test_shipped_bundles_are_found_by_name() -> None:
    assert DEFAULT_MODEL in shipped_models()
    for name, folder in shipped_models().items():
        bundle = load_bundle(name)
        assert (bundle.spec.name, bundle.folder) == (name, folder)
        assert bundle.spec.classes == CLASSES


def test_a_missing_bundle_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(MribatchError) as caught:
        load_bundle(str(tmp_path))
    assert str(caught.value) == (
        f"no model bundle at '{tmp_path}' (a folder with bundle.json). Fix: name a bundle's folder, "
        f"or one that ships with mribatch: {', '.join(shipped_models())}"
    )


def test_every_kind_of_broken_bundle_has_its_text() -> None:
    assert PROBLEMS.keys() == BAD_BUNDLES.keys()


@pytest.mark.parametrize("kind", sorted(BAD_BUNDLES))
def test_a_broken_bundle_is_refused_in_one_line_with_the_numbers(tmp_path: Path, kind: str) -> None:
    folder = make_bad(tmp_path / "bundle", kind)
    hashes = {
        name.split(".")[0]: sha256((folder / name).read_bytes()).hexdigest()[:16]
        for name in (MODEL_FILE, GOLDEN_FILE)
        if (folder / name).exists()
    }
    with pytest.raises(MribatchError) as caught:
        load_bundle(str(folder))
    said = str(caught.value)
    problem = PROBLEMS[kind] if kind == "class_name_with_line_break" else PROBLEMS[kind].format(folder=folder, **hashes)
    fix = EXPORT_FIX if problem.startswith("the model bundle") else RESTORE_FIX
    if problem.endswith("…"):
        assert said.startswith(problem[:-1])
        assert said.endswith(fix)
    else:
        assert said == f"{problem}. {fix}"
    assert len(said.splitlines()) == 1


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    with (folder / GOLDEN_FILE).open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(MribatchError, match=r"golden\.npz: it has 1,099,511,627,776 bytes; the limit is 268,435,456"):
        load_bundle(str(folder))


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that a property test damages and mends again and again."""
    return make_tiny(tmp_path_factory.mktemp("victim"))


edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4)


def _edited(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    changed = bytearray(content)
    for place, removed, inserted in changes:
        position = int(place * len(changed))
        changed[position : position + removed] = inserted
    return bytes(changed)


@settings(max_examples=150, deadline=None)
@given(changes=edits)
def test_damaged_golden_slices_with_a_right_hash_are_read_or_refused_in_one_line(
    tiny_bundle: Path, victim: Path, changes: list[tuple[float, int, bytes]]
) -> None:
    set_golden(victim, _edited((tiny_bundle / GOLDEN_FILE).read_bytes(), changes))
    try:
        golden = load_bundle(str(victim)).golden
    except MribatchError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert np.isfinite(golden.probabilities).all()
        assert golden.images.shape == (len(golden.probabilities), 8, 8, 1)
    finally:
        shutil.copy(tiny_bundle / SPEC_FILE, victim / SPEC_FILE)
        shutil.copy(tiny_bundle / GOLDEN_FILE, victim / GOLDEN_FILE)


@settings(max_examples=150, deadline=None)
@given(changes=edits)
def test_a_damaged_bundle_json_is_read_or_refused_in_one_line(
    tiny_bundle: Path, victim: Path, changes: list[tuple[float, int, bytes]]
) -> None:
    (victim / SPEC_FILE).write_bytes(_edited((tiny_bundle / SPEC_FILE).read_bytes(), changes))
    try:
        load_bundle(str(victim))
    except MribatchError as error:
        assert len(str(error).splitlines()) == 1
    finally:
        shutil.copy(tiny_bundle / SPEC_FILE, victim / SPEC_FILE)


def test_the_hash_of_the_bundle_changes_with_anything_in_it(tmp_path: Path, tiny_bundle: Path) -> None:
    other = make_tiny(tmp_path, seed=2)
    assert (
        json.loads((other / SPEC_FILE).read_text())["model_sha256"] != load_bundle(str(tiny_bundle)).spec.model_sha256
    )
    assert load_bundle(str(other)).sha256 != load_bundle(str(tiny_bundle)).sha256


def test_a_shipped_model_is_found_however_its_name_is_joined() -> None:
    assert [load_bundle(role).spec.name for role in ("default", "fast")] == [DEFAULT_MODEL, FAST_MODEL]
    assert load_bundle("efficientnet_lite2").spec.name == load_bundle("efficientnet-lite2").spec.name

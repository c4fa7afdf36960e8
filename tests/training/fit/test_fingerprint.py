"""The fingerprint of a fit: its file format, its hash, and the field in which two of them differ."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.training.fit.checkpoints import FINGERPRINT_FILE, Checkpoints
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.recipes.catalog import RECIPES

FINGERPRINT = FitFingerprint(
    recipe=RECIPES["efficientnet_lite0"].facts(),
    weights_sha256="w",
    classes=("a", "b"),
    data_sha256="d",
    parts_sha256="p",
    seed=3,
    versions={"tensorflow": "2.21", "keras": "3.15"},
)


def test_the_file_is_flat_and_read_back_without_loss() -> None:
    content = FINGERPRINT.to_json()
    assert list(content)[-7:] == [
        *("weights_sha256", "classes", "data_sha256", "parts_sha256", "seed"),
        *("version.tensorflow", "version.keras"),
    ]
    assert content["recipe.learning_rate"] == 1e-3 and content["recipe.augmentation.rotation_degrees"] == 12
    assert FitFingerprint.from_json(json.loads(json.dumps(content))) == FINGERPRINT
    assert "weights_sha256" not in replace(FINGERPRINT, weights_sha256=None).to_json()
    assert FINGERPRINT.digest == sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_the_first_field_that_differs_is_named() -> None:
    assert FINGERPRINT.find_difference(FINGERPRINT) is None
    assert FINGERPRINT.find_difference(replace(FINGERPRINT, seed=4)) == ("seed", 3, 4)
    assert FINGERPRINT.find_difference(replace(FINGERPRINT, weights_sha256=None)) == ("weights_sha256", "w", None)
    other = replace(FINGERPRINT, versions={"tensorflow": "2.20", "keras": "3.15"}, seed=4)
    assert FINGERPRINT.find_difference(other) == ("seed", 3, 4)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "it is not a JSON object"),
        ("{", "cannot read"),
        ('{"seed": 1}', "its fields are not those of a fit: classes, data_sha256, parts_sha256"),
        (
            '{"classes": [], "data_sha256": "", "parts_sha256": "", "seed": "1"}',
            "its field 'seed' is of the wrong type",
        ),
        ('{"classes": [], "data_sha256": "", "parts_sha256": "", "seed": 1, "more": 1}', "not those of a fit: more"),
    ],
)
def test_another_file_is_refused(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / FINGERPRINT_FILE).write_text(content)
    with pytest.raises(MribatchError, match=rf"cannot read .*fit\.json.*{problem}|{problem} .*fit\.json"):
        Checkpoints(tmp_path).check_fingerprint(FINGERPRINT)

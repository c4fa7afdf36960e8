"""What identifies a fit: two fits with equal fingerprints have the same weights after every epoch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

_RECIPE, _VERSION = "recipe.", "version."
_OPTIONAL = ("weights_sha256", "fitted_sha256", "teacher_sha256")


@dataclass(frozen=True, kw_only=True)
class FitFingerprint:
    """Everything that decides the weights after any epoch; the content of fit.json."""

    recipe: Mapping[str, Any]  # of `Recipe.facts`, keys "recipe.NAME"
    weights_sha256: str | None = None  # of the file of initial weights, if there is one
    fitted_sha256: str | None = None  # of fits.json, if the network was fitted elsewhere
    teacher_sha256: str | None = None  # of the teachers' bundles, if there are any
    classes: tuple[str, ...]  # in output order
    data_sha256: str  # of paths, labels and pixels
    parts_sha256: str  # of the part of every image
    seed: int
    versions: Mapping[str, str]  # library -> version

    @property
    def digest(self) -> str:
        """sha256, hex."""
        return sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the content of fit.json: one flat object."""
        optional = {name: getattr(self, name) for name in _OPTIONAL}
        return {
            **self.recipe,
            **{name: value for name, value in optional.items() if value is not None},
            "classes": list(self.classes),
            "data_sha256": self.data_sha256,
            "parts_sha256": self.parts_sha256,
            "seed": self.seed,
            **{f"{_VERSION}{name}": version for name, version in self.versions.items()},
        }

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read the content of fit.json.

        Raises:
            ValueError: A field is missing, unknown or of the wrong type; names it.
        """
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        rest = dict(content)
        recipe = {key: rest.pop(key) for key in content if key.startswith(_RECIPE)}
        versions = {key.removeprefix(_VERSION): rest.pop(key) for key in content if key.startswith(_VERSION)}
        optional = {name: rest.pop(name, None) for name in _OPTIONAL}
        kinds = {"classes": list, "data_sha256": str, "parts_sha256": str, "seed": int}
        if different := sorted(rest.keys() ^ kinds.keys()):
            raise ValueError(f"its fields are not those of a fit: {', '.join(different)}")
        wrong = [name for name, kind in kinds.items() if not isinstance(rest[name], kind)]
        wrong += [name for name, value in optional.items() if not isinstance(value, str | None)]
        if wrong:
            raise ValueError(f"its field '{wrong[0]}' is of the wrong type")
        rest["classes"] = tuple(map(str, rest["classes"]))
        return cls(recipe=recipe, versions=versions, **optional, **rest)

    def find_difference(self, other: "FitFingerprint") -> tuple[str, Any, Any] | None:
        """Return the first field that differs as (name, own value, the other's value); None if they are equal."""
        own, others = (json.loads(json.dumps(one.to_json())) for one in (self, other))
        for key in sorted(own.keys() | others.keys()):
            if own.get(key) != others.get(key):
                return key, own.get(key), others.get(key)
        return None

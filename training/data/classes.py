"""The classes of a network, and other names that people use for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import find_known_spelling, normalise_label


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of the network's outputs, and their aliases in folder names.

    Raises:
        MribatchError: Fewer than two classes, or two that differ only in case, spaces or hyphens.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)  # other spelling -> class name

    def __post_init__(self) -> None:
        if len({normalise_label(name) for name in self.names}) < max(2, len(self.names)):
            raise MribatchError(
                f"the classes {', '.join(self.names)} are not two or more different names",
                "name each class once, separated by commas",
            )

    def index_of(self, folder: str) -> int | None:
        """Return the position of the class with a folder's name, or None; case, spaces and hyphens are ignored."""
        position = self._indices().get(normalise_label(folder))
        known = find_known_spelling(folder, self.names) if position is None else None
        return self.names.index(known) if known is not None else position

    def _indices(self) -> dict[str, int]:
        indices = {normalise_label(alias): self.names.index(name) for alias, name in self.aliases.items()}
        return indices | {normalise_label(name): index for index, name in enumerate(self.names)}


BRAIN_TUMORS = ClassList(
    names=("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"),
    aliases={
        "glioma": "glioma_tumor",
        "glioma_tumour": "glioma_tumor",
        "meningioma": "meningioma_tumor",
        "meningioma_tumour": "meningioma_tumor",
        "no": "no_tumor",
        "none": "no_tumor",
        "normal": "no_tumor",
        "healthy": "no_tumor",
        "notumor": "no_tumor",
        "notumour": "no_tumor",
        "no_tumour": "no_tumor",
        "pituitary": "pituitary_tumor",
        "pituitary_tumour": "pituitary_tumor",
    },
)
"""The four classes of Bhuvaji et al. 2020 and of the other public sets made from the same sources."""


def parse_classes(names: str | None) -> ClassList:
    """Return the classes of `--classes`, separated by commas; without it, the brain tumour classes."""
    if names is None:
        return BRAIN_TUMORS
    chosen = tuple(name.strip() for name in names.split(",") if name.strip())
    return BRAIN_TUMORS if chosen == BRAIN_TUMORS.names else ClassList(chosen)

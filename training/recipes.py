"""Recipes: everything that decides a fit apart from the data and the seed, as small declarative entries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mribatch.errors import MribatchError
from mribatch.training.augment import Augmentation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train one network."""

    name: str  # as typed: mribatch train NAME
    description: str  # one line for people
    notes: tuple[str, ...] = ()  # what departs from the source, and why; goes into the model card
    network: str  # a name in networks.NETWORKS
    options: Mapping[str, float] = field(default_factory=dict)  # of that network
    size: int = 160  # pixels, height and width
    batch: int
    epochs: int  # at most
    patience: int  # epochs without a lower validation loss before the fit ends
    learning_rate: float  # of Adam, constant
    augmentation: Augmentation = field(default_factory=Augmentation)
    clean_statistics: bool = False  # BatchNormalization's are measured anew after every epoch; see batch_statistics

    def facts(self) -> dict[str, Any]:
        """Flat dotted names -> values of all that decides what an epoch does, for fingerprints.

        `epochs` is left out: the rate is constant, so how many epochs may follow changes none of them, and a fit may
        be prolonged.
        """
        content = asdict(self)
        for field_name in ("description", "notes", "epochs"):
            content.pop(field_name)
        flat: dict[str, Any] = {}
        for key, value in content.items():
            inner = value if isinstance(value, dict) else {"": value}
            flat |= {f"recipe.{key}.{name}".rstrip("."): item for name, item in inner.items()}
        return flat


_CNN = Recipe(
    name="cnn",
    description="five convolutions from scratch, 330,000 weights; the reference project's small network",
    notes=(
        "The reference ends in a sigmoid trained with cross-entropy, so its four numbers do not add up to one; this "
        "network ends in a softmax, the output that cross-entropy over exclusive classes belongs to.",
        "The reference built its augmentation and then did not use it; here it is applied.",
        "The reference chose its best epoch on the images it reported on; here a validation part chooses, and the "
        "test part is used once.",
        "BatchNormalization's running statistics are measured on clean training images after every epoch, before the "
        "validation part is scored; moving averages, as the reference kept them, lag behind the weights.",
        "Pixels 0..255 are divided by 255 inside the network; convolutions have no padding (Keras' default).",
    ),
    network="cnn",
    options={"dropout": 0.15},
    batch=9,
    epochs=70,
    patience=15,
    learning_rate=7e-5,
    augmentation=Augmentation(rotation_degrees=7, shift=0.05, zoom=0.10, flip=True),
    clean_statistics=True,
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (_CNN,)}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        MribatchError: There is none; names those that exist.
    """
    if name not in RECIPES:
        raise MribatchError(f"there is no recipe '{name}'", f"choose one of: {', '.join(RECIPES)}")
    return RECIPES[name]

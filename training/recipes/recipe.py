"""The settings of one way to train one network."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mribatch.training.recipes.augmentation import Augmentation

NO_WEIGHTS, IMAGENET = "none", "imagenet"
_FIRST_CHANGES = {"rotation_degrees", "shift", "zoom", "flip", "brightness", "contrast"}
# Settings that came after the first bundles, with the value at which they change nothing.
_LATER: Mapping[str, float] = {
    **{f"augmentation.{each.name}": 0.0 for each in fields(Augmentation) if each.name not in _FIRST_CHANGES},
    **dict.fromkeys(
        ("average_epochs", "mixup_share", "cutmix_share", "frame", "early_epochs", "late_epochs", "teacher_share"), 0.0
    ),
}
# Later settings that matter only where another one is not 0.
_PARAMETERS: Mapping[str, str] = {
    "mixup": "mixup_share",
    "cutmix": "cutmix_share",
    "early_frame": "early_epochs",
    "late_rate": "late_epochs",
    "late_augmentation": "late_epochs",
    "teacher_temperature": "teacher_share",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train one network."""

    name: str  # as typed: mribatch train NAME
    description: str  # one line for people
    notes: tuple[str, ...] = ()  # departures from the source, with reasons; printed in the model card
    network: str  # a name in networks.build.NETWORKS
    options: Mapping[str, float] = field(default_factory=dict)  # options of that network
    size: int = 160  # pixels, height and width
    batch: int  # images per training step
    epochs: int  # maximum number
    patience: int  # epochs without a lower validation loss before the fit ends
    keep: str = "best"  # which epoch: "best" (lowest validation loss) or "last" (nothing is chosen)
    learning_rate: float  # its maximum over the fit
    schedule: str = "constant"  # a name in schedules.SCHEDULES
    optimizer: str = "adam"  # or "adamw", which does not decay biases and BatchNormalization
    weight_decay: float = 0.0  # adamw only
    clipnorm: float = 0.0  # maximum norm of each gradient; 0: not clipped
    label_smoothing: float = 0.0
    weights_average: float = 0.0  # decay of the moving average of the weights, which is evaluated and kept; 0: none
    weights: str = NO_WEIGHTS  # initial weights: "none", "imagenet" or a file
    frozen_blocks: int = 0  # EfficientNet-Lite only: the stem and this many blocks are not trained
    augmentation: Augmentation = field(default_factory=Augmentation)
    clean_statistics: bool = False  # BatchNormalization's are measured after every epoch; see fit/batch_statistics.py
    average_epochs: int = 0  # what is kept is the mean of the weights after so many last epochs; 0: not
    mixup: float = 0.2  # parameters of the Beta distribution of the shares; see fit/mixing.py
    mixup_share: float = 0.0  # of batches whose slices are averaged with another
    cutmix: float = 1.0
    cutmix_share: float = 0.0  # of batches whose slices have a square of another
    frame: int = 0  # side, pixels, to which the graph stretches what is not background; 0: not; see networks/frame.py
    early_epochs: int = 0  # epochs at the start whose slices are framed to a smaller size, which takes less time
    early_frame: int = 0  # that size, pixels
    late_epochs: int = 0  # epochs at the end, after the schedule, in which nothing is mixed; see recipes/phases.py
    late_rate: float = 0.0  # their first learning rate
    late_augmentation: str = "light"  # theirs, a name in augmentation.AUGMENTATIONS
    teacher_share: float = 0.0  # of the loss that a teacher's answers have; needs --teacher
    teacher_temperature: float = 2.0  # at which they are compared

    def facts(self) -> dict[str, Any]:
        """Return everything that decides what an epoch does, for fingerprints: flat dotted names -> values.

        Settings that fits had before are always there; later ones only where they change something, so that earlier
        fits keep their fingerprints. `epochs` is left out if the learning rate is constant: the number of later epochs
        changes no earlier one, so such a fit can be extended. A schedule spreads over all epochs, so their number
        counts.
        """
        ignored = {"epochs"} if self.schedule == "constant" else set()
        named = {"name": self.name, "network": self.network} | self.settings()
        unused = {key for key, value in _LATER.items() if named[key] == value}
        unused |= {name for name, share in _PARAMETERS.items() if named[share] == 0}
        return {f"recipe.{key}": value for key, value in named.items() if key not in ignored | unused}

    def settings(self) -> dict[str, Any]:
        """Return what `--set` may change: flat dotted names -> values."""
        flat: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if key not in ("name", "description", "notes", "network"):
                inner = value if isinstance(value, dict) else {"": value}
                flat |= {f"{key}.{name}".rstrip("."): item for name, item in inner.items()}
        return flat

"""The networks of folds as bundles, to be teachers of students that are tested on the same folds."""

from pathlib import Path

import numpy as np

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.bundle import SPEC_FILE
from mribatch.core.errors import MribatchError
from mribatch.core.training_images import TrainingImages
from mribatch.training.export.bundle import BundleFacts, write_bundle
from mribatch.training.fit.loop import FitInputs, FitResult
from mribatch.training.workflow.options import TrainOptions


def check_fold_bundle(options: TrainOptions, work: Path) -> None:
    """Refuse to go on without the bundle of a finished fold, whose network is gone.

    Raises:
        MribatchError: It is missing.
    """
    if options.fold_bundles is not None and not (options.fold_bundles / work.name / SPEC_FILE).is_file():
        problem = f"{work} was finished without --fold-bundles, and its network is gone"
        raise MribatchError(problem, "delete that folder to fit the fold again, or omit --fold-bundles")


def write_fold_bundle(options: TrainOptions, protocol: str, fitted: FitResult, inputs: FitInputs, out: Path) -> None:
    """Write the network of a fit as a bundle that knows the images it learned from and those that chose its epoch."""
    name, used = f"{options.bundle_name}-{out.name}", inputs.train.pixels
    if inputs.watched.name == "validation":
        used = np.concatenate([used, inputs.watched.pixels])
    facts = BundleFacts(
        name=name,
        classes=options.classes,
        description=f"{out.name} of {options.bundle_name}, to be a teacher",
        training={"recipe": options.recipe.name, "protocol": protocol, "fingerprint": inputs.fingerprint.digest},
        training_images=TrainingImages.of_pixels(used),
        licences={"weights": options.weights_licence, "training_data": options.sheet.licence},
    )
    card = (
        f"# {name}\n\n**{RESEARCH_NOTICE}**\n\nThe network of one fit of {options.bundle_name}, not calibrated and "
        "not measured here: a teacher for students that are tested on the images that it has not seen. Protocol: "
        f"{protocol}.\n"
    )
    write_bundle(fitted.network, facts, card, out)

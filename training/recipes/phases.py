"""What an epoch of a fit does, by its place: most of them as the recipe says, the late ones milder.

Late epochs finish a fit that has seen strongly changed and mixed slices on slices as they are, or nearly so, at a small
learning rate, as YOLOX does in its last epochs (Ge et al. 2021, arXiv:2107.08430, section 2.1).
"""

from mribatch.training.recipes.augmentation import AUGMENTATIONS, Augmentation
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.recipes.schedules import SCHEDULES, cosine


def is_late(recipe: Recipe, epoch: int) -> bool:
    """Whether an epoch, from 1, is one of the late ones, in which nothing is mixed."""
    return epoch > recipe.epochs - recipe.late_epochs


def augmentation_in(recipe: Recipe, epoch: int) -> Augmentation:
    """Return the random changes of an epoch, from 1."""
    return AUGMENTATIONS[recipe.late_augmentation] if is_late(recipe, epoch) else recipe.augmentation


def learning_rate_after(recipe: Recipe, epochs: float) -> float:
    """Return the learning rate after so many epochs, whole or not: by the schedule, then down half a cosine wave."""
    scheduled = recipe.epochs - recipe.late_epochs
    if epochs < scheduled:
        return recipe.learning_rate * SCHEDULES[recipe.schedule](epochs / scheduled)
    return recipe.late_rate * cosine((epochs - scheduled) / recipe.late_epochs)

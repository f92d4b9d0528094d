"""The typed recipe: the only place that knows configuration keys.

A recipe is one YAML file. Unknown keys are refused with the nearest known one, every mistake is
reported at once, and units live in the key names (`_epochs`, `_mib`, `_degrees`).
"""

from insitu.recipe.reading import load, parse
from insitu.recipe.schema import EpochDecay, Optimizer, PlateauDecay, Recipe, StepDecay

__all__ = ["EpochDecay", "Optimizer", "PlateauDecay", "Recipe", "StepDecay", "load", "parse"]

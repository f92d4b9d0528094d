"""The typed recipe: the only place that knows configuration keys.

A recipe is one YAML file. Unknown keys are refused with the nearest known one, all wrong keys and
values of a readable recipe are reported at once, and units live in the key names (`_epochs`,
`_mib`, `_degrees`). What needs the data or the model is checked later, by who has them.
"""

from insitu.recipe.reading import load, parse, read
from insitu.recipe.schema import Bigdl, EpochDecay, PlateauDecay, Recipe, StepDecay

__all__ = ["Bigdl", "EpochDecay", "PlateauDecay", "Recipe", "StepDecay", "load", "parse", "read"]

"""What of a recipe the BigDL engine cannot do; answered without loading anything."""

from insitu.errors import UserError
from insitu.recipe import Recipe


def check_recipe(recipe: Recipe) -> None:
    """Refuse what the BigDL engine cannot do.

    Raises:
        UserError: naming the key.
    """
    training, mend = recipe.training, "leave it out, or train with training.engine=orca"
    if training.precision == "bf16":
        raise UserError("training.precision", "BigDL computes in fp32, not in bf16", mend)
    if recipe.model.normalization == "group":
        raise UserError("model.normalization", "BigDL has no group normalization", mend)
    if recipe.model.freeze_trunk_epochs:
        raise UserError("model.freeze_trunk_epochs", "the BigDL engine does not freeze trunks", mend)
    if recipe.data.reader != "pyarrow":
        raise UserError("data.reader", f"BigDL reads Parquet in the JVM, not with {recipe.data.reader}", mend)
    if recipe.data.cache_mib:
        raise UserError("data.cache_mib", "BigDL keeps no decoded images", mend)

"""insitu: deep learning where the data already is.

    import insitu
    spark = insitu.spark_session("notebook")
    recipe = insitu.load_recipe("conf/recipes/digits.yaml", ["training.epochs=3"])
    insitu.train(spark, recipe, data="digits", output="model")
    trained = insitu.load("model")

The names load what they need when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insitu.cluster.session import spark_session
    from insitu.data.ingest import ingest
    from insitu.errors import UserError
    from insitu.recipe import load as load_recipe
    from insitu.recommend.recipe import load_als as load_als_recipe
    from insitu.recommend.train import train_als
    from insitu.recommend.write import write_recommendations
    from insitu.scoring.batch import score_batch
    from insitu.scoring.dataframes import register_udf, score
    from insitu.scoring.promote import promote, roll_back
    from insitu.scoring.quantize import quantize
    from insitu.scoring.trained import load
    from insitu.tracking import Tracking
    from insitu.training.run import train

__all__ = [
    "Tracking",
    "UserError",
    "ingest",
    "load",
    "load_als_recipe",
    "load_recipe",
    "promote",
    "quantize",
    "register_udf",
    "roll_back",
    "score",
    "score_batch",
    "spark_session",
    "train",
    "train_als",
    "write_recommendations",
]

_HOMES = {
    "Tracking": ("insitu.tracking", "Tracking"),
    "UserError": ("insitu.errors", "UserError"),
    "ingest": ("insitu.data.ingest", "ingest"),
    "load": ("insitu.scoring.trained", "load"),
    "load_als_recipe": ("insitu.recommend.recipe", "load_als"),
    "load_recipe": ("insitu.recipe", "load"),
    "promote": ("insitu.scoring.promote", "promote"),
    "quantize": ("insitu.scoring.quantize", "quantize"),
    "register_udf": ("insitu.scoring.dataframes", "register_udf"),
    "roll_back": ("insitu.scoring.promote", "roll_back"),
    "score": ("insitu.scoring.dataframes", "score"),
    "score_batch": ("insitu.scoring.batch", "score_batch"),
    "spark_session": ("insitu.cluster.session", "spark_session"),
    "train": ("insitu.training.run", "train"),
    "train_als": ("insitu.recommend.train", "train_als"),
    "write_recommendations": ("insitu.recommend.write", "write_recommendations"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'insitu' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)

"""Which ratings train and which are held out."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from insitu.data.layout import split_column
from insitu.errors import UserError
from insitu.recommend.recipe import Holdout

_ACCURACY = 100_000


def split(ratings: DataFrame, holdout: Holdout, *, seed: int) -> tuple[DataFrame, DataFrame, dict[str, int]]:
    """The training and the held-out ratings, and how many they are: `train` and `held_out`.

    By random a rating's place follows from the seed, its user and its item alone. By time the newest are held
    out, to a hundred-thousandth of all; of ratings with the same time none or all, so that no rating that trains
    is newer than a held-out one.

    Args:
        ratings: `user`, `item`, `rating`, and `time` if the split is by time.

    Raises:
        UserError: one of the two would be empty.
    """
    if holdout.by == "random":
        is_held_out = split_column(F.struct("user", "item"), holdout=holdout.fraction, seed=seed) == "validation"
    else:
        cut = F.percentile_approx("time", 1 - holdout.fraction, _ACCURACY).alias("cut")
        ratings = ratings.crossJoin(F.broadcast(ratings.agg(cut)))
        is_held_out = F.col("time") > F.col("cut")
    marked = ratings.withColumn("held_out", is_held_out).drop("cut")
    counts = {row["held_out"]: row["count"] for row in marked.groupBy("held_out").count().collect()}
    for side, name in ((True, "held-out"), (False, "training")):
        if side not in counts:
            problem = f"{holdout.fraction:g} of {sum(counts.values())} ratings leaves no {name} rating"
            raise UserError("data.holdout.fraction", problem, "change it, or bring more ratings")
    training, held_out = (marked.filter(F.col("held_out") == side).drop("held_out") for side in (False, True))
    return training, held_out, {"train": counts[False], "held_out": counts[True]}

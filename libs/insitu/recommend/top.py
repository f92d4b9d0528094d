"""The best items of each user, by blocks of matrix products (`jvm/recommend/Recommendations.scala`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.ml.recommendation import ALSModel
    from pyspark.sql import DataFrame


def top_items(
    model: "ALSModel", users: "DataFrame | None" = None, k: int = 10, seen: "DataFrame | None" = None
) -> "DataFrame":
    """The `k` items with the highest predicted ratings for each user, as `ALSModel.recommendForAllUsers` gives them.

    Args:
        model: of `insitu.recommend.als.ALS` or of MLlib's.
        users: has the model's user column; None for all users of the model. Those that it does not know are left out.
        k: items for each user; a user gets fewer where there are not so many.
        seen: has the model's user and item columns; pairs that are not recommended.

    Returns:
        a row a user: the user column (int), and `recommendations`, array<struct<item column: int, rating: float>>, the
        highest rating first, of equal ones the smaller id first. A user who has seen all items has an empty array.
    """
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    user, item = model.getUserCol(), model.getItemCol()
    factors = model.userFactors
    if users is not None:
        factors = factors.join(users.select(users[user].alias("id")), "id", "left_semi")
    pairs = None
    if seen is not None:  # an id that is no integer of 32 bits is none of the model's
        ids = [F.expr(f"try_cast(`{name.replace('`', '``')}` as int)") for name in (user, item)]
        pairs = seen.select(*ids).dropna()._jdf
    spark = factors.sparkSession
    jvm: Any = spark.sparkContext._jvm
    top = jvm.insitu.recommend.als.Recommendations.top(
        factors._jdf, model.itemFactors._jdf, model.rank, k, pairs, user, item
    )
    return DataFrame(top, spark)

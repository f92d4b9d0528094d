"""The best items of each user, by blocks of matrix products (`jvm/recommend/Recommendations.scala`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.ml.recommendation import ALSModel
    from pyspark.sql import DataFrame


def top_items(
    model: "ALSModel", count: int, *, users: "DataFrame | None" = None, seen: "DataFrame | None" = None
) -> "DataFrame":
    """The `count` items with the highest predicted ratings, as `ALSModel.recommendForAllUsers` gives them.

    Args:
        model: of `insitu.recommend.als.ALS` or of MLlib's.
        count: items for each user.
        users: has the model's user column; None for all users of the model. Users that the model does not
            know are left out.
        seen: has the model's user and item columns; pairs that are not recommended.

    Returns:
        a row a user: the user column (int), and `recommendations`, array<struct<item column: int, rating: float>>, the
        highest rating first, of equal ones the smaller id first.
    """
    from pyspark.sql import DataFrame

    user, item = model.getUserCol(), model.getItemCol()
    factors = model.userFactors
    if users is not None:
        factors = factors.join(users.select(users[user].alias("id")), "id", "left_semi")
    pairs = None if seen is None else seen.select(seen[user].cast("int"), seen[item].cast("int"))
    spark = factors.sparkSession
    jvm: Any = spark.sparkContext._jvm
    columns = spark.sparkContext._gateway.new_array(jvm.String, 2)
    columns[0], columns[1] = user, item
    recommendations = jvm.insitu.recommend.als.Recommendations
    top = recommendations.top(
        factors._jdf, model.itemFactors._jdf, model.rank, count, None if pairs is None else pairs._jdf, columns
    )
    return DataFrame(top, spark)

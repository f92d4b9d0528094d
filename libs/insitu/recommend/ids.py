"""Ids of any type → dense integers 0..n-1, and the tables that translate between the two.

The integers are a function of the set of ids alone: neither Spark's partitions nor the ratings'
order change them. No id goes through the driver.
"""

from itertools import accumulate

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from insitu.errors import UserError

_BUCKETS = 256
_MOST = 2**31 - 1  # an ALSModel knows its users and items by 32-bit integers


def numbered(ratings: DataFrame, column: str) -> tuple[DataFrame, int]:
    """The ids of a column, numbered in the order of a hash.

    Args:
        ratings: a row for each rating.
        column: `user` or `item`.

    Returns:
        a row for each id: `id` as it is, `index` int 0..n-1, `ratings` long, the number of its ratings; and n.

    Raises:
        UserError: a single id, or more than an ALSModel can tell apart.
    """
    bucket = F.pmod(F.xxhash64("id"), F.lit(_BUCKETS)).cast("int")
    ids = ratings.groupBy(F.col(column).alias("id")).agg(F.count("*").alias("ratings")).withColumn("bucket", bucket)
    sizes = {row["bucket"]: row["count"] for row in ids.groupBy("bucket").count().collect()}
    total = sum(sizes.values())
    if not 2 <= total <= _MOST:
        problem = f"the training ratings have {total} {column}{'' if total == 1 else 's'}"
        raise UserError(f"data.{column}_column", problem, f"bring 2 to {_MOST}, or name another column")
    starts = accumulate((sizes.get(i, 0) for i in range(_BUCKETS - 1)), initial=0)
    start = F.array(*map(F.lit, starts))[F.col("bucket")]
    place = F.row_number().over(Window.partitionBy("bucket").orderBy("id")) - 1
    return ids.select("id", (start + place).cast("int").alias("index"), "ratings"), total


def translated(rows: DataFrame, column: str, ids: DataFrame, *, to: str) -> DataFrame:
    """The rows with a column's values replaced; those that `ids` does not know are left out.

    Args:
        rows: any.
        column: holds ids, or indices.
        ids: from `numbered`.
        to: `index` or `id`.
    """
    known, wanted = ("id", "index") if to == "index" else ("index", "id")
    pairs = ids.select(F.col(known).alias("_known"), F.col(wanted).alias("_wanted"))
    joined = rows.join(pairs, rows[column] == pairs["_known"])
    return joined.withColumn(column, F.col("_wanted")).drop("_known", "_wanted")

"""From a dataset of ratings to what a factorisation trains and is measured on."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from insitu import artifact
from insitu.errors import UserError
from insitu.recommend.ids import numbered, translated
from insitu.recommend.ratings import Table, checked, count_bad, merged
from insitu.recommend.recipe import AlsRecipe
from insitu.recommend.split import split

USERS = "users.parquet"
ITEMS = "items.parquet"


@dataclass(frozen=True)
class Prepared:
    """Ratings by number, and what the numbers stand for.

    Attributes:
        users, items: `id`, `index` int, `ratings` long: the training ratings' users and items, as the model
            directory holds them.
        training: `user` int, `item` int, `rating` float.
        held_out: the same and perhaps `time`, of users and items that are in training.
        counts: `users`, `items`, `rows` of the dataset, `quarantined`, `merged` (with another of the same user and
            item), `train`, `held_out`, and `cold` (held out, of a user or an item that is not in training).
    """

    users: DataFrame
    items: DataFrame
    training: DataFrame
    held_out: DataFrame
    counts: dict[str, int]


def prepare(table: Table, recipe: AlsRecipe, staging: str, stack: ExitStack) -> Prepared:
    """Check the rows, merge duplicates, split, and number the users and items.

    Args:
        table: the dataset.
        recipe: with its columns resolved.
        staging: a directory to write `users.parquet`, `items.parquet` and `quarantine.parquet` to.
        stack: closing it frees what is kept in Spark's memory.

    Raises:
        UserError: too many bad rows, duplicates that are not to be, or ratings that nothing can be learned from.
    """
    print("data: checking the ratings", file=sys.stderr)
    rows = _kept(checked(table, recipe.data, implicit=recipe.model.implicit), stack)
    total, bad = count_bad(rows, max_bad_fraction=recipe.data.max_bad_fraction)
    is_bad = F.col("reason").isNotNull()
    rows.filter(is_bad).coalesce(1).write.parquet(f"{staging}/{artifact.QUARANTINE}")
    ratings = _kept(merged(rows.filter(~is_bad).drop("reason"), recipe.data.duplicates), stack)
    training, held_out, sizes = split(ratings, recipe.data.holdout, seed=recipe.seed)
    users, user_count = _written_ids(training, "user", f"{staging}/{USERS}")
    items, item_count = _written_ids(training, "item", f"{staging}/{ITEMS}")
    known = _kept(_translated(training.select("user", "item", "rating"), users, items), stack)
    warm = _kept(_translated(held_out, users, items), stack)
    warm_count = warm.count()
    counts = {
        "users": user_count,
        "items": item_count,
        "rows": total,
        "quarantined": bad,
        "merged": total - bad - sum(sizes.values()),
        "train": sizes["train"],
        "held_out": warm_count,
        "cold": sizes["held_out"] - warm_count,
    }
    if not counts["held_out"]:
        raise UserError(
            "data.holdout",
            f"the user or the item of each of the {counts['cold']} held-out ratings is not in training",
            "hold out by random or another fraction, or bring more ratings",
        )
    print(
        f"data: {counts['train']} training ratings of {user_count} users and {item_count} items, "
        f"{counts['held_out']} held out and {counts['cold']} more left out as cold, "
        f"{counts['quarantined']} quarantined, {counts['merged']} merged, seed {recipe.seed}",
        file=sys.stderr,
    )
    return Prepared(users, items, known, warm, counts)


def _kept(rows: DataFrame, stack: ExitStack) -> DataFrame:
    stack.callback(rows.persist().unpersist)
    return rows


def _written_ids(ratings: DataFrame, column: str, uri: str) -> tuple[DataFrame, int]:
    ids, count = numbered(ratings, column)
    ids.write.parquet(uri)
    return ids.sparkSession.read.schema(ids.schema).parquet(uri), count


def _translated(ratings: DataFrame, users: DataFrame, items: DataFrame) -> DataFrame:
    return translated(translated(ratings, "user", users, to="index"), "item", items, to="index")

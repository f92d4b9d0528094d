"""The best items for each user, from a model directory to Parquet."""

import json
import sys
import time
from typing import Any

import yaml
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem, qualify
from insitu.data.publish import publishing
from insitu.errors import UserError
from insitu.recommend.executors import on_executors
from insitu.recommend.ids import translated
from insitu.recommend.prepare import ITEMS, USERS
from insitu.recommend.ratings import Table, open_table
from insitu.recommend.top import top_items


def write_recommendations(
    spark: SparkSession,
    *,
    model: str,
    output: str,
    users: str | None = None,
    top: int = 10,
    seen: str | bool = False,
) -> dict[str, Any]:
    """Write a row for each user and place: `user` and `item` with their own ids, `rank` int from 1, `score` float.

    The listed users that are not in the model are in `output/_unknown_users` (Parquet, `user`), which readers of
    `output` do not see.

    Args:
        spark: the session whose executors do it.
        model: a model directory of `train_als`; every file of it is verified first.
        output: a directory that does not exist; it appears whole or not at all.
        users: Parquet or CSV with a column of users, called as in the training data or by a usual name; None
            takes all of the model.
        top: the most items for a user.
        seen: Parquet or CSV of ratings whose pairs of user and item are left out; True is the model's own training
            data, as it is now; False leaves nothing out.

    Returns:
        `output`, `users`, `unknown_users`, `rows`, `top` and `seconds`.

    Raises:
        UserError: any of these is wrong, the model directory is damaged, or no listed user is in the model.
    """
    started = time.monotonic()
    if top < 1:
        raise UserError("--top", f"{top} is too small", "give 1 or more")
    model, output = qualify(spark, "--model", model), qualify(spark, "--output", output)
    with publishing(spark, "--output", output) as partial:
        artifact.verify(model, part=artifact.ALS, setting="--model", each=on_executors(spark))
        known_users, items = (spark.read.parquet(f"{model}/{name}") for name in (USERS, ITEMS))
        columns = yaml.safe_load(_text(f"{model}/{artifact.RECIPE}"))["data"]
        chosen, unknown = None, 0
        if users is not None:
            listed = _listed(
                open_table(spark, qualify(spark, "--users", users), setting="--users"), columns, known_users
            )
            unknown = _write_unknown(listed, known_users, f"{partial}/_unknown_users")
            chosen = translated(listed.select("user"), "user", known_users, to="index").distinct()
            if chosen.isEmpty():
                raise UserError("--users", f"none of the {unknown} users is in the model", "check the column's ids")
        left_out = None
        if seen:
            pairs = _pairs(_seen(spark, model, seen), columns, known_users, items)
            left_out = pairs if chosen is None else pairs.join(chosen, "user", "left_semi")
        lists = top_items(ALSModel.load(f"{model}/{artifact.ALS}"), chosen, top, left_out)
        places = lists.select("user", F.posexplode("recommendations").alias("place", "entry"))
        rows = places.select(
            "user", (F.col("place") + 1).alias("rank"), "entry.item", F.col("entry.rating").alias("score")
        )
        named = translated(translated(rows, "user", known_users, to="id"), "item", items, to="id")
        named.select("user", "rank", "item", "score").write.mode("append").parquet(partial)
        written = spark.read.parquet(partial).agg(F.count("*").alias("rows"), F.countDistinct("user").alias("users"))
        counts = written.collect()[0].asDict()
    seconds = round(time.monotonic() - started, 1)
    return {"output": output, **counts, "unknown_users": unknown, "top": top, "seconds": seconds}


def _listed(table: Table, columns: dict[str, Any], known: DataFrame) -> DataFrame:
    """The users of a table: `given` as text, and `user` in the type of the model's ids, null if it cannot be one."""
    name = table.user_column("--users", table.like(columns["user_column"]))
    user = table.typed("--users", name, known.schema["id"].dataType)
    given = table.typed("--users", name, StringType())
    return table.rows.select(given.alias("given"), user.alias("user")).filter("given is not null").distinct()


def _write_unknown(listed: DataFrame, known: DataFrame, path: str) -> int:
    """Write the listed users that the model does not know, and return how many they are."""
    unknown = listed.join(known, listed["user"] == known["id"], "left_anti").select(F.col("given").alias("user"))
    unknown.coalesce(1).write.parquet(path)
    count = listed.sparkSession.read.schema(unknown.schema).parquet(path).count()
    if count:
        print(f"recommend: {count} listed users are not in the model", file=sys.stderr)
    return count


def _seen(spark: SparkSession, model: str, seen: str | bool) -> Table:
    """The ratings to leave out; a training dataset that has changed is used as it is, and that is said."""
    if isinstance(seen, str):
        return open_table(spark, qualify(spark, "--filter-seen", seen), setting="--filter-seen")
    then = json.loads(_text(f"{model}/{artifact.PROVENANCE}"))["data"]
    try:
        table = open_table(spark, then["uri"], setting="--filter-seen")
    except UserError as error:
        _, problem, _ = error.args
        mend = "name where the ratings are now: --filter-seen DATA"
        raise UserError("--filter-seen", f"the training data cannot be read: {problem}", mend) from None
    if table.fingerprint() != then["fingerprint"]:
        print(f"recommend: {table.uri} has changed since the training; it is taken as it is", file=sys.stderr)
    return table


def _pairs(table: Table, columns: dict[str, Any], users: DataFrame, items: DataFrame) -> DataFrame:
    """`user` int and `item` int of the ratings whose user and item the model knows, each pair once."""
    setting = "--filter-seen"
    user = table.user_column(setting, table.like(columns["user_column"]))
    item = table.item_column(setting, table.like(columns["item_column"]))
    rows = table.rows.select(
        table.typed(setting, user, users.schema["id"].dataType).alias("user"),
        table.typed(setting, item, items.schema["id"].dataType).alias("item"),
    )
    return translated(translated(rows, "user", users, to="index"), "item", items, to="index").distinct()


def _text(uri: str) -> str:
    file_system, path = open_filesystem(uri)
    return file_system.cat_file(path).decode()

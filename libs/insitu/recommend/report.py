"""The report of a factorisation: from its tables to `report/index.html`."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from insitu import artifact
from insitu.recommend import charts
from insitu.recommend.evaluate import CONVERGENCE
from insitu.recommend.prepare import Prepared
from insitu.recommend.top import top_items
from insitu.report.page import render
from insitu.report.runs import by_section, read_lines
from insitu.report.write import REPORT

_GROUPS = 10
_MOST_VALUES = 40
_BINS = 24
_USERS_SHOWN = 4
_ITEMS_SHOWN = 5
_RATINGS_ENOUGH = 5


@dataclass(frozen=True)
class Sample:
    """A user with the items that it rated best in training, and those recommended; text but for the numbers.

    Attributes:
        user: its id.
        ratings: in training.
        own: item and rating.
        listed: item, score, and whether a held-out rating of the user is for it.
    """

    user: str
    ratings: int
    own: list[tuple[str, float]]
    listed: list[tuple[str, float, bool]]


def write_report(directory: Path, *, model: ALSModel, prepared: Prepared, predictions: DataFrame) -> None:
    """Write `report/index.html`, one file that needs no other and no JavaScript.

    Args:
        directory: local, with `recipe.yaml`, `metrics.json`, `provenance.json`, `history.jsonl` (may be empty) and
            `convergence.json`.
        model: with the columns `user` and `item`.
        prepared: what it was trained on.
        predictions: the held-out ratings: `item` by its own id, `rating` float and `prediction` float.
    """
    recipe = yaml.safe_load((directory / artifact.RECIPE).read_text())
    provenance = artifact.read_json(directory / artifact.PROVENANCE)
    history = read_lines(directory / artifact.HISTORY)
    points = artifact.read_json(directory / CONVERGENCE)
    implicit = recipe["model"]["implicit"]
    page = render(
        "als.html",
        recipe=recipe,
        provenance=provenance,
        tiles=_tiles(artifact.read_json(directory / artifact.METRICS), provenance, recipe),
        training=charts.training_error(history, implicit=implicit) if history else None,
        convergence=charts.convergence(points),
        sample_ratings=points[-1]["ratings"],
        popularity=charts.popularity(_sizes(prepared.items)),
        errors=None if implicit else _errors(predictions, prepared.items),
        histogram=_histogram(prepared.training, log=implicit),
        samples=_samples(model, prepared, seed=recipe["seed"]),
        facts=by_section(provenance),
        recipe_text=(directory / artifact.RECIPE).read_text(),
    )
    (directory / REPORT).parent.mkdir()
    (directory / REPORT).write_text(page)


def _tiles(metrics: dict[str, float], provenance: dict[str, Any], recipe: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and note of each number at the top."""
    k, run, rows = recipe["evaluation"]["k"], provenance["run"], provenance["data"]["rows"]
    known = {
        "rmse": ("RMSE", "root mean square error of the held-out ratings"),
        "mae": ("MAE", "mean absolute error of the same"),
        f"ndcg_at_{k}": (f"NDCG@{k}", "mean over users with a held-out item that is relevant"),
        f"precision_at_{k}": (f"Precision@{k}", "the same"),
        f"map_at_{k}": (f"MAP@{k}", "the same"),
    }
    measured = [(known[name][0], f"{metrics[name]:.3f}", known[name][1]) for name in known if name in metrics]
    per_second = rows["train"] * recipe["model"]["iterations"] / max(run["fit_seconds"], 0.01)
    return [
        *measured,
        ("Users", f"{run['users']:,}", f"{run['items']:,} items"),
        ("Training ratings", f"{rows['train']:,}", f"{rows['train'] / run['users']:,.1f} for each user"),
        ("Fit", f"{run['fit_seconds']:,.1f} s", f"{per_second:,.0f} ratings/s an iteration"),
    ]


def _sizes(items: DataFrame) -> list[tuple[int, int]]:
    """Numbers of ratings, and how many items have each."""
    return [
        (row["ratings"], row["items"]) for row in items.groupBy("ratings").agg(F.count("*").alias("items")).collect()
    ]


def _errors(predictions: DataFrame, items: DataFrame) -> Markup:
    """The held-out ratings in ten groups of about the same size, by how often their items were rated."""
    squared = F.pow(F.col("rating") - F.col("prediction"), 2)
    sizes = items.select(F.col("id").alias("item"), "ratings")
    sums = predictions.join(sizes, "item").groupBy("ratings").agg(F.sum(squared).alias("sum"), F.count("*").alias("n"))
    ratings, sums_of_squares, counts = np.array(sorted(map(tuple, sums.collect()))).T
    group = (_GROUPS * (counts.cumsum() - counts) / counts.sum()).astype(int)
    names, errors = [], []
    for number_ in np.unique(group):
        chosen = group == number_
        low, high = int(ratings[chosen].min()), int(ratings[chosen].max())
        names.append(str(low) if low == high else f"{low}–{high}")  # noqa: RUF001 - an en dash is meant
        errors.append(float(np.sqrt(sums_of_squares[chosen].sum() / counts[chosen].sum())))
    return charts.error_by_popularity(names, errors)


def _histogram(training: DataFrame, *, log: bool) -> Markup:
    """A bar for each value where there are few, else equal bins."""
    values = training.groupBy("rating").count().limit(_MOST_VALUES + 1).collect()
    if len(values) <= _MOST_VALUES:
        found = sorted((row["rating"], row["count"]) for row in values)
        width = min((b[0] - a[0] for a, b in pairwise(found)), default=1.0)
    else:
        low, high = training.agg(F.min("rating"), F.max("rating")).collect()[0]
        width = (high - low) / _BINS
        place = F.least(F.floor((F.col("rating") - low) / width), F.lit(_BINS - 1)).alias("place")
        binned = training.groupBy(place).count().collect()
        found = sorted((low + (row["place"] + 0.5) * width, row["count"]) for row in binned)
    return charts.histogram([value for value, _ in found], [count for _, count in found], width=width, log=log)


def _samples(model: ALSModel, prepared: Prepared, *, seed: int) -> list[Sample]:
    """A few users, drawn by the seed from those with some ratings if there are such."""
    drawn = prepared.users.orderBy(F.col("ratings") < _RATINGS_ENOUGH, F.xxhash64(F.lit(seed), "index"))
    users = {row["index"]: row for row in drawn.limit(_USERS_SHOWN).collect()}
    spark = prepared.users.sparkSession
    chosen = spark.createDataFrame([(index,) for index in users], "user int")
    rated = prepared.training.join(F.broadcast(chosen), "user")
    best_first = Window.partitionBy("user").orderBy(F.desc("rating"), "item")
    own = rated.withColumn("place", F.row_number().over(best_first)).filter(F.col("place") <= _ITEMS_SHOWN)
    lists = top_items(model, chosen, _ITEMS_SHOWN, rated.select("user", "item"))
    entries = lists.select("user", F.posexplode("recommendations").alias("place", "entry"))
    listed = entries.select("user", "place", "entry.item", F.col("entry.rating").alias("rating"))
    shown = _named(own, prepared).collect(), _named(listed, prepared).collect()
    held_out = prepared.held_out.join(F.broadcast(chosen), "user").select("user", "item").collect()
    hits = {(row["user"], row["item"]) for row in held_out}
    own_rows, listed_rows = (sorted(rows, key=lambda row: row["place"]) for rows in shown)
    return [
        Sample(
            user=str(user["id"]),
            ratings=user["ratings"],
            own=[(str(row["id"]), row["rating"]) for row in own_rows if row["user"] == index],
            listed=[
                (str(row["id"]), row["rating"], (index, row["item"]) in hits)
                for row in listed_rows
                if row["user"] == index
            ],
        )
        for index, user in users.items()
    ]


def _named(rows: DataFrame, prepared: Prepared) -> DataFrame:
    """`user`, `item`, `place`, `rating`, and the item's `id`."""
    ids = prepared.items.select(F.col("index").alias("item"), "id")
    return rows.join(ids, "item").select("user", "item", "place", "rating", "id")

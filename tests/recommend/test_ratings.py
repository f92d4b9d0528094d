"""Duplicates and splits, on ratings that are written out."""

from datetime import date
from decimal import Decimal

import pytest
from pyspark.sql import SparkSession

from insitu.errors import UserError
from insitu.recommend.ids import numbered, translated
from insitu.recommend.ratings import merged
from insitu.recommend.recipe import Holdout
from insitu.recommend.split import split

ROWS = [("a", 1, 2.0, 30), ("a", 1, 5.0, 10), ("a", 1, 2.0, 20), ("b", 1, 4.0, 10)]
SCHEMA = "user string, item int, rating float, time long"


@pytest.mark.parametrize(("policy", "rating"), [("last", 2.0), ("mean", 3.0), ("sum", 9.0), ("max", 5.0)])
def test_duplicates_become_one_rating(spark: SparkSession, policy: str, rating: float) -> None:
    rows = merged(spark.createDataFrame(ROWS, SCHEMA), policy).select("user", "item", "rating", "time").collect()
    assert sorted(map(tuple, rows)) == [("a", 1, rating, 30), ("b", 1, 4.0, 10)]


def test_duplicates_are_refused_with_an_example(spark: SparkSession) -> None:
    expected = r"data\.duplicates: it is error, and 1 pairs .* such as user a and item 1 with 3; set it to last, mean"
    with pytest.raises(UserError, match=expected):
        merged(spark.createDataFrame(ROWS, SCHEMA), "error")


def test_random_split_and_numbers_depend_on_nothing_but_seed_and_ids(spark: SparkSession) -> None:
    pairs = spark.range(2000).selectExpr("id % 40 AS user", "id AS item", "float(1) AS rating")

    def held_out(seed: int, partitions: int) -> set[int]:
        rows = split(pairs.repartition(partitions), Holdout(fraction=0.2), seed=seed)[1]
        return {row["item"] for row in rows.collect()}

    assert held_out(1, 1) == held_out(1, 7) != held_out(2, 1)
    assert 320 < len(held_out(1, 1)) < 480
    numbers = [sorted(numbered(pairs.repartition(n), "user")[0].collect()) for n in (1, 7)]
    assert numbers[0] == numbers[1]
    assert sorted(row["index"] for row in numbers[0]) == list(range(40))
    assert {row["ratings"] for row in numbers[0]} == {50}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, -1.0, 2.0], "double"),
        ([date(2024, 1, 1), date(1960, 2, 29)], "date"),
        ([b"\x00", b"\xff"], "binary"),
        ([Decimal("12345678901234567890"), Decimal("-1")], "decimal(20,0)"),
        ([True, False], "boolean"),
    ],
)
def test_ids_of_any_type_are_numbered(spark: SparkSession, values: list, kind: str) -> None:
    rows = spark.createDataFrame([(value,) for value in values], f"user {kind}")
    numbers, count = numbered(rows, "user")
    assert count == len(values)
    found = {(row["id"] if kind != "binary" else bytes(row["id"])): row["index"] for row in numbers.collect()}
    assert set(found) == set(values) and sorted(found.values()) == list(range(count))
    back = translated(translated(rows, "user", numbers, to="index"), "user", numbers, to="id")
    assert sorted(map(str, back.collect())) == sorted(map(str, rows.collect()))


def test_ratings_of_the_same_time_stay_together(spark: SparkSession) -> None:
    rows = spark.range(100).selectExpr("id AS user", "id AS item", "float(1) AS rating", "id div 30 AS time")
    training, held_out, _ = split(rows, Holdout(by="time", fraction=0.2), seed=1)
    assert {row["time"] for row in training.collect()} == {0, 1, 2}
    assert held_out.count() == 10
    with pytest.raises(UserError, match=r"data\.holdout\.fraction: 0\.2 of 100 ratings leaves no held-out rating"):
        split(rows.selectExpr("user", "item", "rating", "1 AS time"), Holdout(by="time", fraction=0.2), seed=1)

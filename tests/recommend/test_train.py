"""`insitu.train_als`, from ratings of every kind to the model directory."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import insitu
from insitu import artifact
from insitu.errors import UserError
from insitu.recommend import ids
from recommend.trained import BLOCKS, NOISE, Planted, read, train
from report.browser import overflow

QUICK = ("model.rank=2", "model.iterations=1", *BLOCKS)


def ratings(users: Any, items: Any, *, count: int = 300) -> pd.DataFrame:
    """`count` different pairs of these users and items, with ratings from 1 to 5 and a time that rises."""
    pairs = np.random.default_rng(3).permutation(len(users) * len(items))[:count]
    return pd.DataFrame(
        {
            "userId": [users[pair // len(items)] for pair in pairs],
            "itemId": [items[pair % len(items)] for pair in pairs],
            "rating": 1.0 + pairs % 5,
            "time": np.arange(len(pairs)) + 1_700_000_000,
        }
    )


def test_planted_factors_are_found_up_to_the_noise(planted: Planted) -> None:
    metrics = planted.summary["metrics"]
    assert NOISE < metrics["rmse"] <= 1.1 * NOISE
    assert metrics["mae"] == pytest.approx(metrics["rmse"] * (2 / np.pi) ** 0.5, rel=0.05)
    assert 0 < metrics["map_at_10"] <= metrics["ndcg_at_10"] <= 1
    assert {name: planted.summary[name] for name in ("rows", "quarantined", "merged", "users", "items")} == {
        "rows": 20_000,
        "quarantined": 0,
        "merged": 0,
        "users": 400,
        "items": 150,
    }
    assert sum(planted.summary[name] for name in ("train", "held_out", "cold")) == 20_000
    assert 1800 < planted.summary["held_out"] < 2200


def test_directory_holds_mllibs_model_and_the_ids_that_belong_to_it(spark: SparkSession, planted: Planted) -> None:
    users, items, predictions = (
        spark.read.parquet(f"{planted.model}/{name}.parquet") for name in ("users", "items", "predictions")
    )
    assert sorted(row["index"] for row in users.collect()) == list(range(400))
    assert users.agg(F.sum("ratings")).collect()[0][0] == planted.summary["train"]
    assert users.schema["id"].dataType.simpleString() == "int"
    model = ALSModel.load(f"{planted.model}/als")
    numbered = predictions.join(users.select(F.col("id").alias("user"), F.col("index").alias("u")), "user")
    numbered = numbered.join(items.select(F.col("id").alias("item"), F.col("index").alias("i")), "item")
    again = model.setUserCol("u").setItemCol("i").setPredictionCol("again").transform(numbered)
    rows = pd.DataFrame(again.select("prediction", "again").toPandas())
    assert len(rows) == planted.summary["held_out"]
    np.testing.assert_array_equal(rows["prediction"], rows["again"])


def test_directory_says_where_it_comes_from(planted: Planted) -> None:
    provenance = read(planted.model / artifact.PROVENANCE)
    assert provenance["data"]["uri"] == f"file://{planted.data}"
    assert provenance["data"]["rows"]["train"] == planted.summary["train"]
    assert read(planted.model / artifact.METRICS) == planted.summary["metrics"]
    assert read(planted.model / artifact.RECIPE)["data"]["user_column"] == "user"
    points = read(planted.model / "convergence.json")
    assert [point["iterations"] for point in points] == [1, 2, 3]
    assert points[-1]["held_out"] == pytest.approx(planted.summary["metrics"]["rmse"], abs=1e-3)
    assert points[0]["held_out"] > points[-1]["held_out"]
    history = [json.loads(line) for line in (planted.model / artifact.HISTORY).read_text().splitlines()]
    assert [line["iteration"] for line in history] == [1, 2, 3]
    assert history[-1]["loss"] ** 0.5 == pytest.approx(points[-1]["training"], rel=1e-3)
    artifact.verify(str(planted.model), part=artifact.ALS, setting="DIR")
    assert sorted(path.name for path in planted.model.parent.iterdir()) == ["model", "ratings"]


def test_report_stands_alone_and_fits_a_phone(planted: Planted, tmp_path: Path) -> None:
    path = planted.model / "report/index.html"
    page = path.read_text()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]))
    for part in ("Convergence", "Ratings", "Recommendations", "Data and provenance", "Recipe"):
        assert part in words
    assert f"RMSE {planted.summary['metrics']['rmse']:.3f}" in words
    assert f"all {planted.summary['train']:,} training ratings" in words
    assert page.count("<svg") == 5
    assert page.count("<h3>User ") == 4
    assert "<script" not in page and "http" not in re.sub(r"http-equiv", "", page)
    for width in (320, 1280):
        assert overflow(path, width=width, scratch=tmp_path) == 0


def test_ids_come_back_as_they_were(spark: SparkSession, tmp_path: Path) -> None:
    texts = ["7", "007", " 7", 'a "b", c', "Ünï", "7.0", *map(str, range(100, 114))]
    numbers = [-(2**63), -5, 2**31, 2**63 - 1, *range(16)]
    spark.createDataFrame(ratings(texts, numbers)).write.parquet(f"{tmp_path}/data")
    train(spark, tmp_path / "data", tmp_path / "model", *QUICK)
    for table, column, ids_ in (("users", "user", texts), ("items", "item", numbers)):
        known = {row["id"] for row in spark.read.parquet(f"{tmp_path}/model/{table}.parquet").collect()}
        assert known == set(ids_)
        predicted = spark.read.parquet(f"{tmp_path}/model/predictions.parquet").select(column).distinct()
        assert {row[0] for row in predicted.collect()} <= known


def test_csv_is_read_by_its_suffix_and_bad_rows_are_quarantined(spark: SparkSession, tmp_path: Path) -> None:
    table = ratings(["7", "007", 'a "b", c', "d"], list("vwxyz"), count=20)
    bad = pd.DataFrame(
        {
            "userId": [None, "b", "c", "d", "e", "f"],
            "itemId": ["v", None, "v", "v", "v", "v"],
            "rating": [1, 1, None, "much", "NaN", "1e400"],
            "time": 1,
        }
    )
    pd.concat([table, bad]).to_csv(tmp_path / "ratings.csv", index=False)
    with pytest.raises(UserError, match=r"data\.max_bad_fraction: 6 of 26 rows cannot be used, more than 0\.2 of them"):
        train(spark, tmp_path / "ratings.csv", tmp_path / "model", *QUICK, "data.max_bad_fraction=0.2")
    assert [path.name for path in tmp_path.iterdir()] == ["ratings.csv"]
    summary = train(spark, tmp_path / "ratings.csv", tmp_path / "model", *QUICK, "data.max_bad_fraction=0.3")
    assert (summary["rows"], summary["quarantined"], summary["users"]) == (26, 6, 4)
    quarantine = spark.read.parquet(f"{tmp_path}/model/quarantine.parquet").collect()
    assert sorted(row["reason"] for row in quarantine) == [
        "no item",
        "no rating",
        "no user",
        "the rating is no number",
        "the rating is not finite",
        "the rating is not finite",
    ]


def test_implicit_lists_hold_what_a_user_will_like(spark: SparkSession, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = [(user, item) for user in range(60) for item in range(40) if user % 2 == item % 2 and random.random() < 0.7]
    rows += rows[:50]  # several events of a pair
    spark.createDataFrame(rows, "user long, movie_id long").write.parquet(f"{tmp_path}/events")
    settings = ("model.rank=4", "model.iterations=3", "evaluation.k=3", *BLOCKS)
    summary = train(spark, tmp_path / "events", tmp_path / "model", *settings, recipe="als_implicit")
    assert summary["merged"] == 50
    assert set(summary["metrics"]) == {"precision_at_3", "ndcg_at_3", "map_at_3"}
    # Of the 20 items of its kind a user has about 7.8 that are not in training, 1.8 of them held out.
    assert summary["metrics"]["precision_at_3"] == pytest.approx(0.23, abs=0.08)
    assert "Held-out RMSE" not in (tmp_path / "model/report/index.html").read_text()


def test_negative_rating_is_a_bad_row_of_an_implicit_recipe(spark: SparkSession, tmp_path: Path) -> None:
    table = ratings(range(9), range(9), count=50)
    table.loc[3, "rating"] = -1.0
    spark.createDataFrame(table).write.parquet(f"{tmp_path}/data")
    with pytest.raises(UserError, match=r"1 of 50 rows .* negative, and the recipe is implicit, such as user"):
        train(spark, tmp_path / "data", tmp_path / "model", "data.rating_column=rating", recipe="als_implicit")


def test_newest_ratings_are_held_out_and_cold_ones_counted(spark: SparkSession, tmp_path: Path) -> None:
    table = ratings(range(10), range(20), count=180)
    table.loc[table.index[-5:], "userId"] = range(95, 100)
    table["time"] = pd.to_datetime(table["time"], unit="s")
    spark.createDataFrame(table).repartition(3).write.parquet(f"{tmp_path}/data")
    settings = ("data.time_column=time", "data.holdout={by: time, fraction: 0.25}")
    summary = train(spark, tmp_path / "data", tmp_path / "model", *QUICK, *settings)
    assert (summary["train"], summary["held_out"], summary["cold"]) == (135, 40, 5)
    held_out = spark.read.parquet(f"{tmp_path}/model/predictions.parquet").select(F.col("time").cast("long")).collect()
    assert sorted(row.time for row in held_out) == sorted(table["time"][135:175].astype("int64") // 10**9)


def test_one_user_is_nothing_to_learn_from(spark: SparkSession, tmp_path: Path) -> None:
    spark.createDataFrame(ratings([1], range(50), count=50)).write.parquet(f"{tmp_path}/data")
    with pytest.raises(UserError, match=r"data\.user_column: the training ratings have 1 user; bring 2"):
        train(spark, tmp_path / "data", tmp_path / "model", *QUICK)


@pytest.mark.parametrize(
    ("rating", "settings", "message"),
    [
        (
            "1e30 * rating",
            ("model.solver=cg",),
            r"data\.rating_column: ratings are so large that the factors leave single precision",
        ),
        ("0.0", ("model.reg=0",), r"model\.reg: leaves equations that single precision cannot solve"),
    ],
    ids=["huge", "singular"],
)
def test_what_single_precision_cannot_solve_is_told_by_its_key(
    spark: SparkSession, tmp_path: Path, rating: str, settings: tuple[str, ...], message: str
) -> None:
    rows = spark.createDataFrame(ratings(range(20), range(30), count=500))
    rows.withColumn("rating", F.expr(rating)).write.parquet(f"{tmp_path}/data")
    with pytest.raises(UserError, match=message):
        train(spark, tmp_path / "data", tmp_path / "model", *QUICK, "model.iterations=3", *settings)
    assert spark.sparkContext.getCheckpointDir() is None, "it would be of the directory that was not published"


def test_more_ids_than_a_model_can_number_are_refused(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "_MOST", 8)
    spark.createDataFrame(ratings(range(9), range(9), count=80)).write.parquet(f"{tmp_path}/data")
    with pytest.raises(UserError, match=r"data\.user_column: the training ratings have 9 users; bring 2 to 8"):
        train(spark, tmp_path / "data", tmp_path / "model", *QUICK)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "a,rating\n1,2\n",
            r"data\.user_column: is not named, and 0 of the columns a, rating can",
        ),
        ("", "holds no row below its header"),
        ("user,item,rating\n", "holds no row below its header"),
        ("user,item,ratings\n1,2,3\n", r"has no column rating; did you mean ratings\?"),
        ("user,user_id,item,rating\n1,1,2,3\n", "is not named, and 2 of the columns user, user_id, item, rating"),
    ],
)
def test_csv_without_ratings_is_told_why(spark: SparkSession, tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "ratings.csv").write_text(content)
    with pytest.raises(UserError, match=problem):
        train(spark, tmp_path / "ratings.csv", tmp_path / "model", *QUICK)


def test_other_jobs_refuse_the_directory_by_what_it_lacks(planted: Planted) -> None:
    with pytest.raises(
        UserError, match=r"directory: .* holds no model\.keras; name the --output of jobs/train_cnn\.py"
    ):
        insitu.load(str(planted.model))

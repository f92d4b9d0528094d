"""`insitu.write_recommendations`, from a model directory to Parquet."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import SparkSession

import insitu
from insitu.errors import UserError
from recommend.trained import BLOCKS, Planted, train


def rows(spark: SparkSession, path: Path) -> pd.DataFrame:
    return pd.DataFrame(spark.read.parquet(str(path)).toPandas()).sort_values(["user", "rank"], ignore_index=True)


def test_lists_are_mllibs_with_the_users_own_ids(spark: SparkSession, planted: Planted, tmp_path: Path) -> None:
    summary = insitu.write_recommendations(spark, model=str(planted.model), output=f"{tmp_path}/top", top=7)
    assert summary.pop("seconds") > 0
    expected = {"output": f"file://{tmp_path}/top", "users": 400, "unknown_users": 0, "rows": 2800, "top": 7}
    assert summary == expected
    users, items = (
        pd.read_parquet(planted.model / f"{name}.parquet").set_index("index")["id"] for name in ("users", "items")
    )
    lists = ALSModel.load(f"{planted.model}/als").recommendForAllUsers(7).collect()
    wanted = pd.DataFrame(
        [
            (users[entry["user"]], rank, items[item["item"]], item["rating"])
            for entry in lists
            for rank, item in enumerate(entry["recommendations"], 1)
        ],
        columns=["user", "rank", "item", "score"],
    ).sort_values(["user", "rank"], ignore_index=True)
    found = rows(spark, tmp_path / "top")
    np.testing.assert_array_equal(found[["user", "rank"]], wanted[["user", "rank"]])
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5)
    assert (found["item"] == wanted["item"]).mean() > 0.999  # but for ties


def test_listed_users_only_and_the_unknown_ones_are_named(
    spark: SparkSession, planted: Planted, tmp_path: Path
) -> None:
    (tmp_path / "users.csv").write_text("name,USER_ID\nAda,7\nBob,7\nEve,-4\nJoe,no number\nKim,399\n,\n")
    summary = insitu.write_recommendations(
        spark, model=str(planted.model), output=f"{tmp_path}/top", users=f"{tmp_path}/users.csv", top=3
    )
    assert (summary["users"], summary["unknown_users"], summary["rows"]) == (2, 2, 6)
    assert rows(spark, tmp_path / "top")["user"].tolist() == [7, 7, 7, 399, 399, 399]
    unknown = spark.read.parquet(f"{tmp_path}/top/_unknown_users").collect()
    assert sorted(row["user"] for row in unknown) == ["-4", "no number"]


def test_no_known_user_is_a_mistake(spark: SparkSession, planted: Planted, tmp_path: Path) -> None:
    spark.createDataFrame([(1000,)], "user int").write.parquet(f"{tmp_path}/users")
    with pytest.raises(UserError, match="--users: none of the 1 users is in the model; check the column's ids"):
        insitu.write_recommendations(
            spark, model=str(planted.model), output=f"{tmp_path}/top", users=f"{tmp_path}/users"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["users"]


def test_what_was_seen_is_left_out(spark: SparkSession, planted: Planted, tmp_path: Path) -> None:
    insitu.write_recommendations(spark, model=str(planted.model), output=f"{tmp_path}/new", top=150, seen=True)
    rated = set(map(tuple, spark.read.parquet(str(planted.data)).select("user", "item").collect()))
    found = rows(spark, tmp_path / "new")
    listed = set(zip(found["user"], found["item"], strict=True))
    assert listed.isdisjoint(rated)
    assert len(listed) == len(found) == 400 * 150 - len(rated)


def test_seen_can_be_other_data_or_data_that_has_grown(
    spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(2)
    pairs = [(f"u{user}", f"i{item}", float(random.integers(1, 6))) for user in range(9) for item in range(9)]
    data, model = tmp_path / "data.csv", tmp_path / "model"
    pd.DataFrame(pairs[:-20], columns=["user", "item", "rating"]).to_csv(data, index=False)
    train(spark, data, model, "model.rank=2", "model.iterations=1", *BLOCKS)
    (tmp_path / "bought.csv").write_text("product,user\ni3,u0\ni99,u0\n")
    bought = f"{tmp_path}/bought.csv"
    insitu.write_recommendations(spark, model=str(model), output=f"{tmp_path}/a", top=9, seen=bought)
    found = rows(spark, tmp_path / "a")
    assert (found["user"] == "u0").sum() == 8 and len(found) == 9 * found["user"].nunique() - 1
    pd.DataFrame(pairs, columns=["user", "item", "rating"]).to_csv(data, index=False)
    insitu.write_recommendations(spark, model=str(model), output=f"{tmp_path}/b", seen=True)
    assert len(rows(spark, tmp_path / "b")) == 0
    assert "data.csv has changed since the training; it is taken as it is" in capfd.readouterr().err
    data.unlink()
    with pytest.raises(
        UserError, match=r"--filter-seen: the training data cannot be read: .*data\.csv does not exist; name"
    ):
        insitu.write_recommendations(spark, model=str(model), output=f"{tmp_path}/c", seen=True)


@pytest.mark.parametrize("name", ["als/metadata/part-00000", "users.parquet", "als/itemFactors", "recipe.yaml"])
def test_changed_byte_of_the_model_is_refused(spark: SparkSession, planted: Planted, tmp_path: Path, name: str) -> None:
    model = shutil.copytree(planted.model, tmp_path / "model")
    place = model / name
    file = place if place.is_file() else next(place.glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    changed = file.relative_to(model).as_posix()
    with pytest.raises(UserError, match=rf"--model: .*model: {changed} is not what was written"):
        insitu.write_recommendations(spark, model=str(model), output=f"{tmp_path}/top")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_existing_output_and_other_directories_are_refused(
    spark: SparkSession, planted: Planted, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--output: .* exists"):
        insitu.write_recommendations(spark, model=str(planted.model), output=str(planted.data))
    with pytest.raises(UserError, match=r"--model: .* is no model directory"):
        insitu.write_recommendations(spark, model=str(planted.data), output=f"{tmp_path}/top")
    with pytest.raises(UserError, match="--top: 0 is too small"):
        insitu.write_recommendations(spark, model=str(planted.model), output=f"{tmp_path}/top", top=0)

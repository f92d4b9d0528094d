"""Top items against MLlib's own and against a sort of all scores."""

import numpy as np
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession

from conftest import SEED
from insitu.recommend.als import ALS
from insitu.recommend.top import top_items
from recommend.planted import planted


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    table = planted(np.random.default_rng(SEED), users=150, items=5000, ratings=20_000)
    return spark.createDataFrame(table).withColumnRenamed("user", "who").withColumnRenamed("item", "what").cache()


@pytest.fixture(scope="module")
def model(ratings: DataFrame) -> ALSModel:
    return ALS(rank=5, maxIter=3, seed=1, userCol="who", itemCol="what").fit(ratings)


def listed(recommended: DataFrame) -> dict[int, list[tuple[int, float]]]:
    return {row.who: [(entry.what, entry.rating) for entry in row.recommendations] for row in recommended.collect()}


def test_all_users_get_mllibs_items(model: ALSModel) -> None:
    ours, theirs = top_items(model, k=10), model.recommendForAllUsers(10)
    assert ours.schema.simpleString() == theirs.schema.simpleString()
    expected = listed(theirs)
    assert listed(ours).keys() == expected.keys()
    for user, items in listed(ours).items():
        np.testing.assert_allclose([r for _, r in items], [r for _, r in expected[user]], rtol=1e-5, atol=1e-6)
        assert len({item for item, _ in items} - {item for item, _ in expected[user]}) == 0


def test_named_users_and_what_they_have_seen(spark: SparkSession, model: ALSModel, ratings: DataFrame) -> None:
    users = spark.createDataFrame([(3,), (7,), (3,), (10**6,)], "who int")
    found = listed(top_items(model, users, 4, ratings))
    assert sorted(found) == [3, 7]
    vectors = {row.id: np.array(row.features) for row in model.itemFactors.collect()}
    for user, items in found.items():
        own = np.array(model.userFactors.filter(f"id = {user}").first().features)  # type: ignore[union-attr]
        seen = {row.what for row in ratings.filter(f"who = {user}").collect()}
        best = sorted(((own @ vector, item) for item, vector in vectors.items() if item not in seen), reverse=True)[:4]
        assert [item for item, _ in items] == [item for _, item in best]


def test_more_items_than_there_are_and_equal_scores(spark: SparkSession) -> None:
    pairs = spark.createDataFrame([(1, item, 0.0) for item in (5, -3, 9)], "who int, what int, rating float")
    flat = ALS(rank=2, maxIter=1, seed=1, userCol="who", itemCol="what").fit(pairs)
    assert listed(top_items(flat, k=10)) == {1: [(-3, 0.0), (5, 0.0), (9, 0.0)]}
    assert listed(top_items(flat, k=2)) == {1: [(-3, 0.0), (5, 0.0)]}
    assert listed(top_items(flat, k=2**31 - 1)) == listed(top_items(flat, k=3))


def test_what_is_no_id_of_the_models_was_not_seen(spark: SparkSession, model: ALSModel) -> None:
    users = spark.createDataFrame([(3,)], "who int")
    (best, _), *_ = listed(top_items(model, users, 1))[3]
    strange = spark.createDataFrame([(3, best + 2**32), (3, None), (None, best)], "who long, what long")
    assert listed(top_items(model, users, 4, strange)) == listed(top_items(model, users, 4))

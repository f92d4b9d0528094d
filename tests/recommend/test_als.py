"""The estimator against the equations that it solves, against MLlib's, and under MLlib's tools."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException, PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml import recommendation as mllib
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import DataFrame, SparkSession
from scipy.optimize import nnls

from conftest import SEED
from insitu.recommend.als import ALS
from recommend.planted import NOISE, planted

LONG: dict[str, Any] = {"maxIter": 10, "regParam": 0.002, "seed": 1}
BLOCKS: dict[str, Any] = {"numUserBlocks": 2, "numItemBlocks": 2}
"""Where their number is not what is tested; ten, as MLlib takes by itself, are slower."""


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return planted(np.random.default_rng(SEED), users=200, items=100, ratings=16_000)


@pytest.fixture(scope="module")
def split(spark: SparkSession, table: pd.DataFrame) -> tuple[DataFrame, DataFrame]:
    return spark.createDataFrame(table[:14_000]).cache(), spark.createDataFrame(table[14_000:]).cache()


@pytest.fixture(scope="module")
def mllib_error(split: tuple[DataFrame, DataFrame]) -> Callable[[int], float]:
    """The held-out error of MLlib's model of a rank."""
    train, held_out = split
    return cache(lambda rank: rmse(mllib.ALS(rank=rank, **LONG, **BLOCKS).fit(train), held_out))


def rmse(model: mllib.ALSModel | PipelineModel, held_out: DataFrame) -> float:
    return RegressionEvaluator(labelCol="rating").evaluate(model.transform(held_out))


def factors(table: DataFrame) -> dict[int, np.ndarray]:
    return {row.id: np.array(row.features, np.float64) for row in table.collect()}


def residuals(model: mllib.ALSModel, table: pd.DataFrame, *, reg: float, alpha: float | None) -> list[float]:
    """For each user how far its factors are from solving its normal equations, relative to their right side."""
    x, y = factors(model.userFactors), factors(model.itemFactors)
    rank = model.rank
    every = np.array(list(y.values()))
    far = []
    for user, own in table.groupby("user"):
        columns = np.array([y[item] for item in own["item"]])
        rating = own["rating"].to_numpy(np.float64)
        if alpha is None:
            matrix, right, counted = columns.T @ columns, columns.T @ rating, len(own)
        else:
            confidence = alpha * np.abs(rating)
            matrix = every.T @ every + columns.T @ (confidence[:, None] * columns)
            right, counted = columns.T @ ((1 + confidence) * (rating > 0)), int((rating > 0).sum())
        matrix += reg * counted * np.eye(rank)
        far.append(float(np.linalg.norm(matrix @ x[user] - right)) / max(float(np.linalg.norm(right)), 1e-6))
    return far


@pytest.mark.parametrize("rank", [1, 4, 80])
@pytest.mark.parametrize("implicit", [False, True])
def test_every_row_solves_its_normal_equations(
    spark: SparkSession, table: pd.DataFrame, rank: int, implicit: bool
) -> None:
    """Rank 80 is above the ratings of most users, rank 4 below."""
    settings: dict[str, Any] = {"maxIter": 2, "regParam": 0.05, "implicitPrefs": implicit, "alpha": 0.7, "seed": 1}
    model = ALS(rank=rank, solver="cholesky", **settings, **BLOCKS).fit(spark.createDataFrame(table))
    assert max(residuals(model, table, reg=0.05, alpha=0.7 if implicit else None)) < 1e-3


def test_a_row_with_more_ratings_than_are_gathered_at_once(spark: SparkSession) -> None:
    rng = np.random.default_rng(SEED)
    heavy = pd.DataFrame({"user": 7, "item": np.arange(5000), "rating": rng.normal(size=5000).astype(np.float32)})
    others = pd.DataFrame({"user": rng.integers(100, 200, 5000), "item": np.arange(5000), "rating": np.float32(1)})
    table = pd.concat([heavy, others])
    for solver in ("cholesky", "cg"):
        model = ALS(rank=6, maxIter=2, solver=solver, seed=1, **BLOCKS).fit(spark.createDataFrame(table))
        assert residuals(model, heavy, reg=0.1, alpha=None)[0] < 1e-3


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("rank", [1, 4])
def test_ratings_that_leave_single_precision_end_the_fit(
    spark: SparkSession, table: pd.DataFrame, solver: str, rank: int
) -> None:
    huge = spark.createDataFrame(table.assign(rating=table["rating"] * np.float32(1e30)))
    with pytest.raises((Py4JJavaError, PySparkException), match=r"are ratings huge\?|or scale huge ratings down"):
        ALS(solver=solver, rank=rank, maxIter=3, seed=1, **BLOCKS).fit(huge)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_a_user_whose_every_rating_is_zero(spark: SparkSession, table: pd.DataFrame, solver: str) -> None:
    """Conjugate gradient comes as near to zero as numbers of single precision go."""
    zeroed = table.assign(rating=table["rating"].where(table["user"] != 3, np.float32(0)))
    model = ALS(solver=solver, rank=4, maxIter=20, seed=1, **BLOCKS).fit(spark.createDataFrame(zeroed))
    assert all(np.isfinite(vector).all() for vector in factors(model.itemFactors).values())
    np.testing.assert_allclose(factors(model.userFactors)[3], 0, atol=1e-6)


def test_nonnegative_factors_are_the_best_ones(spark: SparkSession) -> None:
    table = planted(np.random.default_rng(SEED), users=40, items=30, ratings=600, positive=True)
    als = ALS(rank=4, maxIter=5, regParam=0.02, nonnegative=True, seed=1, **BLOCKS)
    model = als.fit(spark.createDataFrame(table))
    x, y = factors(model.userFactors), factors(model.itemFactors)
    for user, own in table.groupby("user"):
        columns = np.array([y[item] for item in own["item"]])
        stacked = np.vstack([columns, np.sqrt(0.02 * len(own)) * np.eye(4)])
        best, _ = nnls(stacked, np.append(own["rating"], np.zeros(4)))
        np.testing.assert_allclose(x[user], best, atol=2e-3)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("rank", [3, 30])
def test_held_out_error_is_mllibs(
    split: tuple[DataFrame, DataFrame], mllib_error: Callable[[int], float], solver: str, rank: int
) -> None:
    """At the planted rank also at most 1.1 times the noise; far above it conjugate gradient needs more iterations."""
    train, held_out = split
    ours = rmse(ALS(solver=solver, rank=rank, **LONG, **BLOCKS).fit(train), held_out)
    theirs = mllib_error(rank)
    assert ours <= (theirs * 1.1 if solver == "cg" and rank == 30 else theirs + 1e-3)
    if rank == 3:
        assert ours <= 1.1 * NOISE


def test_implicit_objective_is_mllibs(spark: SparkSession, table: pd.DataFrame) -> None:
    """Ratings below zero count as none seen, with their size as confidence, as in MLlib."""
    settings: dict[str, Any] = {"rank": 5, "maxIter": 10, "implicitPrefs": True, "alpha": 2.0, "seed": 1, **BLOCKS}

    def objective(model: mllib.ALSModel) -> float:
        x, y = factors(model.userFactors), factors(model.itemFactors)
        predicted = np.array([x[user] for user in range(200)]) @ np.array([y[item] for item in range(100)]).T
        preference, confidence = np.zeros((200, 100)), np.ones((200, 100))
        confidence[table["user"], table["item"]] += 2.0 * np.abs(table["rating"])
        preference[table["user"], table["item"]] = table["rating"] > 0
        return float((confidence * (preference - predicted) ** 2).sum())

    train = spark.createDataFrame(table)
    theirs = objective(mllib.ALS(**settings).fit(train))
    for solver, share in (("cholesky", 1.005), ("cg", 1.02)):
        als = ALS(solver=solver, **settings)
        ours = objective(als.fit(train))
        assert ours <= share * theirs, solver
        assert als.history[-1]["loss"] * len(table) == pytest.approx(ours, rel=1e-3), solver


def test_history_tells_the_training_error(split: tuple[DataFrame, DataFrame]) -> None:
    train, _ = split
    for solver in ("cholesky", "cg"):
        als = ALS(rank=20, maxIter=4, regParam=0.01, solver=solver, seed=1, **BLOCKS)
        model = als.fit(train)
        assert [entry["iteration"] for entry in als.history] == [1, 2, 3, 4]
        assert als.history[-1]["loss"] ** 0.5 == pytest.approx(rmse(model, train), rel=2e-2)


@pytest.mark.parametrize("implicit", [False, True])
def test_the_same_seed_gives_mllibs_factors(spark: SparkSession, table: pd.DataFrame, implicit: bool) -> None:
    settings: dict[str, Any] = {"rank": 4, "maxIter": 3, "seed": 5, "numUserBlocks": 3, "implicitPrefs": implicit}
    train = spark.createDataFrame(table)
    theirs = mllib.ALS(**settings).fit(train)
    for data in (train, train.repartition(5)):
        ours = ALS(solver="cholesky", **settings).fit(data)
        for own, expected in ((ours.userFactors, theirs.userFactors), (ours.itemFactors, theirs.itemFactors)):
            found = factors(own)
            assert all(np.allclose(found[key], vector, atol=2e-3) for key, vector in factors(expected).items())


@pytest.mark.parametrize(("rank", "taken"), [(10, "cholesky"), (48, "cg")])
def test_auto_takes_the_faster_solver_for_implicit_feedback(
    spark: SparkSession, table: pd.DataFrame, rank: int, taken: str
) -> None:
    train = spark.createDataFrame(table.assign(rating=table["rating"].abs()))
    settings: dict[str, Any] = {"rank": rank, "maxIter": 2, "implicitPrefs": True, "seed": 1, **BLOCKS}
    auto, chosen = (factors(ALS(solver=solver, **settings).fit(train).userFactors) for solver in ("auto", taken))
    for user, vector in auto.items():
        np.testing.assert_array_equal(vector, chosen[user])


def test_a_popular_item_a_heavy_user_and_a_long_tail(spark: SparkSession) -> None:
    """Zipf's law for both sides, and 300 000 ratings by one user: one block holds nearly all ratings."""
    rng = np.random.default_rng(SEED)
    heavy = pd.DataFrame({"user": -5, "item": np.arange(300_000)})
    tail = pd.DataFrame({"user": rng.zipf(1.3, 200_000) % 2**31, "item": rng.zipf(1.2, 200_000) % 300_000})
    table = pd.concat([heavy, tail.drop_duplicates()]).astype(np.int32)
    table["rating"] = (table["user"] % 7 + table["item"] % 5).astype(np.float32)
    model = ALS(rank=8, maxIter=2, regParam=0.01, seed=1, **BLOCKS).fit(spark.createDataFrame(table))
    assert max(residuals(model, table, reg=0.01, alpha=None)) < 1e-2


def test_any_32_bit_ids_and_more_blocks_than_ids(spark: SparkSession) -> None:
    ids = [-(2**31), -5, 0, 2**31 - 1]
    rows = [(user, item, float(user == item)) for user in ids for item in ids]
    model = ALS(rank=2, maxIter=2, seed=1).fit(spark.createDataFrame(rows, "user bigint, item int, rating double"))
    assert sorted(factors(model.userFactors)) == sorted(factors(model.itemFactors)) == ids


def test_rows_of_the_same_pair_all_count(spark: SparkSession) -> None:
    """As in MLlib: two ratings of a pair are two ratings."""
    twice = spark.createDataFrame([(1, 1, 1.0), (1, 1, 3.0)], "user int, item int, rating float")
    als = ALS(rank=1, maxIter=10, regParam=1e-4, seed=1, **BLOCKS)
    prediction = als.fit(twice).transform(twice).first()
    assert prediction is not None and prediction.prediction == pytest.approx(2.0, abs=1e-2)


@pytest.mark.parametrize(
    "rows, told",
    [
        ([(1, 1, float("nan"))], "column rating: expected a finite number in the row user 1.0, item 1.0, rating NaN"),
        ([(1, 1, float("inf"))], "rating Infinity"),
        ([(1, 1, None)], "rating null"),
        ([(None, 1, 1.0)], "column user: expected an integer of 32 bits in the row user null"),
        ([(2**40, 1, 1.0)], "user 1.099511627776E12"),
        ([], "no rating"),
    ],
)
def test_what_cannot_be_learned_from_is_told(spark: SparkSession, rows: list[tuple], told: str) -> None:
    with pytest.raises(Exception, match=told):
        ALS(rank=2, maxIter=1, **BLOCKS).fit(spark.createDataFrame(rows, "user bigint, item int, rating float"))


def test_settings_that_cannot_be_are_told(split: tuple[DataFrame, DataFrame]) -> None:
    with pytest.raises(IllegalArgumentException, match="solver"):
        ALS(solver="qr").fit(split[0])
    with pytest.raises(IllegalArgumentException, match="nonnegative"):
        ALS(solver="cg", nonnegative=True).fit(split[0])


def test_a_block_that_no_array_holds_is_told(split: tuple[DataFrame, DataFrame]) -> None:
    with pytest.raises(Exception, match=r"numUserBlocks.*set larger numbers of blocks"):
        ALS(rank=2**30, maxIter=1, seed=1, **BLOCKS).fit(split[0])


def test_a_singular_row_is_told(spark: SparkSession) -> None:
    same = spark.createDataFrame([(1, 1, 0.0), (1, 2, 0.0), (2, 1, 0.0)], "user int, item int, rating float")
    with pytest.raises(Exception, match="regParam"):
        ALS(rank=1, maxIter=3, regParam=0.0, **BLOCKS).fit(same)


def test_mllib_itself_is_a_choice(split: tuple[DataFrame, DataFrame], mllib_error: Callable[[int], float]) -> None:
    train, held_out = split
    als = ALS(rank=3, solver="mllib", **LONG, **BLOCKS)
    assert rmse(als.fit(train), held_out) == pytest.approx(mllib_error(3), rel=1e-3)
    assert als.history == []


def test_it_is_saved_and_loaded_as_mllibs(split: tuple[DataFrame, DataFrame], tmp_path: Path) -> None:
    train, held_out = split
    als = ALS(rank=3, maxIter=3, solver="cg", seed=1, coldStartStrategy="drop", **BLOCKS)
    als.save(str(tmp_path / "als"))
    loaded = ALS.load(str(tmp_path / "als"))
    assert isinstance(loaded, ALS)
    assert (loaded.getSolver(), loaded.getRank(), loaded.getColdStartStrategy()) == ("cg", 3, "drop")
    model = loaded.fit(train)
    model.save(str(tmp_path / "model"))
    again = mllib.ALSModel.load(str(tmp_path / "model"))
    assert again.getColdStartStrategy() == "drop"
    assert rmse(again, held_out) == pytest.approx(rmse(als.fit(train), held_out), rel=1e-4)


@pytest.mark.slow
def test_it_works_in_pipelines_and_searches(split: tuple[DataFrame, DataFrame], tmp_path: Path) -> None:
    train, held_out = split
    als = ALS(maxIter=3, regParam=0.01, seed=1, coldStartStrategy="drop", **BLOCKS)
    pipeline = Pipeline(stages=[als])
    pipeline.save(str(tmp_path / "pipeline"))
    assert isinstance(Pipeline.load(str(tmp_path / "pipeline")).getStages()[0], ALS)
    fitted = pipeline.fit(train)
    fitted.save(str(tmp_path / "fitted"))
    assert rmse(PipelineModel.load(str(tmp_path / "fitted")), held_out) < 0.5
    grid = ParamGridBuilder().addGrid(als.rank, [1, 3]).addGrid(als.solver, ["cholesky", "cg"]).build()
    evaluator = RegressionEvaluator(labelCol="rating")
    searches: list[Callable[[], Any]] = [
        lambda: CrossValidator(estimator=als, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, parallelism=2),
        lambda: TrainValidationSplit(estimator=als, estimatorParamMaps=grid, evaluator=evaluator),
    ]
    for search in searches:
        assert search().fit(train).bestModel.rank == 3


def test_a_hundred_iterations_leave_only_the_factors(spark: SparkSession, table: pd.DataFrame, tmp_path: Path) -> None:
    context: Any = spark.sparkContext
    train = spark.createDataFrame(table[:500])
    before = set(context._jsc.getPersistentRDDs())
    model = ALS(rank=2, maxIter=100, seed=1, **BLOCKS).fit(train)
    assert len(set(context._jsc.getPersistentRDDs()) - before) == 2
    assert model.userFactors.count() == table[:500]["user"].nunique()


def test_checkpoints_are_written_and_old_ones_removed(
    spark: SparkSession, split: tuple[DataFrame, DataFrame], tmp_path: Path
) -> None:
    context: Any = spark.sparkContext
    context.setCheckpointDir(str(tmp_path))
    try:
        ALS(rank=2, maxIter=7, checkpointInterval=2, seed=1, **BLOCKS).fit(split[0])
        assert list(tmp_path.glob("*/rdd-*")) == []  # those of iteration 6 went when 7 was done
        ALS(rank=2, maxIter=6, checkpointInterval=2, seed=1, **BLOCKS).fit(split[0])
        assert len(list(tmp_path.glob("*/rdd-*"))) == 2
    finally:
        context._jsc.sc().checkpointDir_ = None
        context._jsc.sc().setCheckpointDir(None)

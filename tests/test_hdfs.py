"""Jobs with all of their files on a real HDFS."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

import insitu
from conftest import ROOT, SEED
from hdfs import Hdfs, hdfs_cluster
from insitu.data.ratings import write_ratings
from insitu.errors import UserError
from insitu.recipe import Recipe, parse
from insitu.scoring.batch import score_batch
from insitu.sweep.space import parse_space
from insitu.sweep.trials import sweep
from recommend.trained import EXPLICIT
from scored_models import IMAGES
from training.digits_rows import digit_rows, recipe_tree, write_rows
from training.killing_job import Killer
from training.test_engines import Interrupt
from training.test_kills import random_kills

pytestmark = pytest.mark.nightly

STEPS, EPOCHS = 20, 4
AWAY_SECONDS = 20


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs_cluster(tmp_path_factory.mktemp("hdfs"), jars=ROOT / "build/jars") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def local_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows(train=640, validation=33))


@pytest.fixture(scope="module")
def data(hdfs: Hdfs, local_data: str) -> str:
    return hdfs.put(local_data, "data")


def recipe(engine: str) -> Recipe:
    return parse(recipe_tree(engine=engine, workers=2, epochs=EPOCHS, checkpoint={"every_steps": 10}))


def weights(model: str) -> list[np.ndarray]:
    return insitu.load(model).model.get_weights()


@pytest.fixture(scope="module", params=["orca", "bigdl"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def undisturbed(
    spark: SparkSession, engine: str, local_data: str, tmp_path_factory: pytest.TempPathFactory
) -> list[np.ndarray]:
    """The weights of a run on the local disk that nobody disturbs."""
    output = str(tmp_path_factory.mktemp(engine) / "model")
    insitu.train(spark, recipe(engine), data=local_data, output=output, listener=lambda event: None)
    return weights(output)


def assert_same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=0, atol=1e-5)


def test_a_stopped_run_is_locked_and_resumed(
    spark: SparkSession, hdfs: Hdfs, engine: str, data: str, undisturbed: list[np.ndarray]
) -> None:
    output = f"{hdfs.uri}/{engine}-stopped/model"
    with pytest.raises(KeyboardInterrupt):
        insitu.train(spark, recipe(engine), data=data, output=output, listener=Interrupt(after_step=1))
    refused: list[str] = []

    def begin_another(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and not refused:
            with pytest.raises(UserError, match="is being written by another job") as caught:
                insitu.train(spark, recipe(engine), data=data, output=output, resume=True)
            refused.append(str(caught.value))

    summary = insitu.train(spark, recipe(engine), data=data, output=output, resume=True, listener=begin_another)
    assert refused
    assert 1 <= summary["resumed_from_step"] < STEPS * EPOCHS
    assert_same(weights(output), undisturbed)
    assert hdfs.names(f"/{engine}-stopped") == ["model"]


def test_a_namenode_that_is_away_costs_the_steps_since_a_checkpoint_at_the_most(
    spark: SparkSession, hdfs: Hdfs, engine: str, data: str, undisturbed: list[np.ndarray]
) -> None:
    """Away from the first checkpoint on. Python's client waits for it, Java's raises where it reads the data."""
    output = f"{hdfs.uri}/{engine}-away/model"
    away: list[int] = []
    restarts: list[str] = []

    def unplug(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and not away:
            away.append(event["step"])
            hdfs.stop_namenode()
            threading.Timer(AWAY_SECONDS, hdfs.start_namenode).start()
        elif event["event"] == "restart":
            restarts.append(event["reason"])

    summary = insitu.train(spark, recipe(engine), data=data, output=output, listener=unplug)
    assert (away, summary["steps"]) == ([10], STEPS * EPOCHS)
    assert all(engine == "bigdl" and "ConnectException" in reason for reason in restarts), restarts
    assert_same(weights(output), undisturbed)
    assert hdfs.names(f"/{engine}-away") == ["model"]


@pytest.mark.parametrize("engine", ["orca"], scope="module", indirect=True)
def test_a_killed_worker_goes_on_from_its_checkpoint(
    spark: SparkSession, hdfs: Hdfs, engine: str, data: str, undisturbed: list[np.ndarray]
) -> None:
    output = f"{hdfs.uri}/killed/model"
    kills = random_kills(["training"], SEED, steps=STEPS * EPOCHS)
    gateway: Any = spark.sparkContext._gateway
    killer = Killer(kills, spark.sparkContext.applicationId, psutil.Process(gateway.proc.pid))
    summary = insitu.train(spark, recipe(engine), data=data, output=output, listener=killer)
    assert summary["restarts"] == 1, f"kills {kills}"
    assert_same(weights(output), undisturbed)
    assert hdfs.names("/killed") == ["model"]


def test_each_row_is_scored_once(spark: SparkSession, hdfs: Hdfs, small: str, tmp_path: Path) -> None:
    model, incoming, output = hdfs.put(small, "small"), f"{hdfs.uri}/incoming", f"{hdfs.uri}/scored"
    hdfs.files.mkdir("/incoming")
    read = []
    for part in ("a.parquet", "b.parquet"):
        pq.write_table(
            pa.table({"id": [f"{part} {row}" for row in range(len(IMAGES))], "image": IMAGES}), tmp_path / part
        )
        hdfs.files.put_file(str(tmp_path / part), f"/incoming/{part}")
        read.append(score_batch(spark, models=[model], data=incoming, output=output)["rows"])
    read.append(score_batch(spark, models=[model], data=incoming, output=output)["rows"])
    assert read == [len(IMAGES), len(IMAGES), 0]
    scores = spark.read.parquet(f"{output}/scores")
    assert scores.count() == scores.select("id").distinct().count() == 2 * len(IMAGES)


def test_from_files_to_a_promoted_model(spark: SparkSession, hdfs: Hdfs, tmp_path: Path) -> None:
    rows = digit_rows(train=40, validation=20)
    for number, (image, label) in enumerate(zip(rows["image"], rows["label"], strict=True)):
        (tmp_path / f"digits/{label}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"digits/{label}/{number}.png").write_bytes(image)
    files, place = hdfs.put(str(tmp_path / "digits"), "digits"), f"{hdfs.uri}/loop"
    data, model, quantised = f"{place}/data", f"{place}/model", f"{place}/quantised"
    assert insitu.ingest(spark, data=files, output=data)["rows"] == 60
    small = recipe_tree(epochs=1) | {"model": {"name": "mcnn", "options": {"width": 0.25}}}
    small["data"]["size"] = [64, 64]
    insitu.train(spark, parse(small), data=data, output=model)
    insitu.quantize(spark, model=model, data=data, output=quantised, max_drop=0.99)
    registry = f"{place}/registry"
    assert insitu.promote(spark, candidate=quantised, registry=registry, holdout=data, precision="int8")["promoted"]
    assert score_batch(spark, models=[registry], data=data, output=f"{place}/scores")["rows"] == 60
    assert hdfs.names("/loop") == ["data", "model", "quantised", "registry", "scores"]


def test_a_sweep_goes_on(spark: SparkSession, hdfs: Hdfs, data: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree(epochs=1)))
    arguments: dict[str, Any] = {
        "recipe": str(tmp_path / "recipe.yaml"),
        "data": data,
        "output": f"{hdfs.uri}/sweep",
        "space": parse_space([("--grid", "training.seed=1,2")]),
    }

    def end(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        sweep(spark, **arguments, listener=end)
    summary = sweep(spark, **arguments)
    assert (summary["trials"], summary["failed"]) == (2, 0)
    assert set(hdfs.names("/sweep")) >= {"runs", "sweep.csv", "sweep.svg"}
    assert len(hdfs.names("/sweep/runs")) == 2


def test_recommendations(spark: SparkSession, hdfs: Hdfs) -> None:
    ratings, model, top = (f"{hdfs.uri}/als/{name}" for name in ("ratings", "model", "top"))
    write_ratings(spark, ratings, ratings=5_000, users=100, items=50, rank=3, noise=0.3, skew=0.3, seed=5)
    insitu.train_als(
        spark, insitu.load_als_recipe(ROOT / "conf/recipes/als.yaml", EXPLICIT), data=ratings, output=model
    )
    summary = insitu.write_recommendations(spark, model=model, output=top, top=3, seen=True)
    assert summary["rows"] == spark.read.parquet(top).count() == 3 * summary["users"]
    assert hdfs.names("/als") == ["model", "ratings", "top"]

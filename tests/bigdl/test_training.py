"""The BigDL engine's steps are Keras's steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

import insitu
from conftest import Submitted
from insitu import artifact
from insitu.data.opened import open_data
from insitu.errors import UserError
from insitu.recipe import Recipe, load, parse
from insitu.tasks import TASKS
from insitu.training.engines import bigdl
from insitu.training.engines.base import Event, Layout
from insitu.training.optimizers import build_optimizer
from insitu.training.worker import build_model
from training.digits_rows import TRAIN, changed, digit_rows, recipe_tree, write_rows

STEPS = 2
SIZE = (64, 64)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "learning_rate": 0.001},
    "adadelta": {"name": "adadelta", "learning_rate": 1.0},
    "sgd": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "lars": {"name": "lars", "learning_rate": 1.0, "weight_decay": 0.01, "trust_coefficient": 0.01},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows())


def recipe(engine_type: str, *, kind: str = "multiclass", train: int = TRAIN, **training: Any) -> Recipe:
    """Each step takes all `train` rows, so that their order plays no part."""
    tree = recipe_tree(
        engine="bigdl",
        bigdl={"engine_type": engine_type},
        epochs=STEPS,
        global_batch=train,
        schedule={"warmup_epochs": 2},
        **training,
    )
    tree["model"] = {"name": "mcnn", "options": {"width": 0.25}}
    tree["data"]["size"] = list(SIZE)
    tree["task"]["kind"] = kind
    return parse(tree)


def keras_weights(
    recipe: Recipe, class_weights: np.ndarray | None = None, *, labels: np.ndarray | None = None
) -> list[np.ndarray]:
    """The weights after the recipe's steps, each on all training rows, by a plain Keras loop."""
    train = recipe.training.global_batch
    rows = digit_rows(train)
    decode = insitu.data.decode.decode
    images = np.stack([decode(image, size=SIZE, channels=1) for image in rows["image"][:train]])
    labels = np.array(rows["label"][:train]) if labels is None else labels
    model = build_model(recipe, 10 if labels.ndim == 1 else labels.shape[1])
    settings = recipe.training.optimizer.model_dump(exclude={"base_batch"})
    optimizer = build_optimizer(**settings, clip_norm=recipe.training.clip_norm)
    loss = TASKS[recipe.task.kind].loss(class_weights)
    for step in range(STEPS):
        optimizer.learning_rate = settings["learning_rate"] * min(1.0, (step + 1) / 2)
        with tf.GradientTape() as tape:
            mean = tf.reduce_mean(loss(labels, model(images, training=True)))
        optimizer.apply_gradients(
            zip(tape.gradient(mean, model.trainable_variables), model.trainable_variables, strict=True)
        )
    return model.get_weights()


def bigdl_weights(spark: SparkSession, recipe: Recipe, data: str, output: Path) -> list[np.ndarray]:
    insitu.train(spark, recipe, data=data, output=str(output), listener=lambda event: None)
    return insitu.load(str(output)).model.get_weights()


@pytest.fixture(scope="module")
def exact(spark: SparkSession, data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, list[np.ndarray]]:
    """SGD of two workers: the recipe and its weights."""
    chosen = recipe("mklblas", optimizer=OPTIMIZERS["sgd"], workers=2)
    return chosen, bigdl_weights(spark, chosen, data, tmp_path_factory.mktemp("exact") / "model")


def assert_equal(
    ours: list[np.ndarray], theirs: list[np.ndarray], start: list[np.ndarray], *, share: float = 1e-3
) -> None:
    """Within a share of the largest distance that a weight went."""
    moved = max(float(np.abs(a - b).max()) for a, b in zip(theirs, start, strict=True))
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=share * moved)


@pytest.mark.parametrize(
    ("optimizer", "engine_type", "workers"),
    [("adam", "mkldnn", 1), ("adadelta", "mkldnn", 1), ("lars", "mkldnn", 1), ("lars", "mklblas", 2)],
)
def test_steps_are_kerass(
    spark: SparkSession, data: str, tmp_path: Path, optimizer: str, engine_type: str, workers: int
) -> None:
    chosen = recipe(engine_type, optimizer=OPTIMIZERS[optimizer], workers=workers)
    ours = bigdl_weights(spark, chosen, data, tmp_path / "model")
    share = 2e-2 if optimizer == "adam" else 1e-3  # Adam's first steps are a gradient's sign, whatever its size
    assert_equal(ours, keras_weights(chosen), build_model(chosen, 10).get_weights(), share=share)


def test_steps_of_two_workers_are_kerass(exact: tuple[Recipe, list[np.ndarray]]) -> None:
    chosen, ours = exact
    assert_equal(ours, keras_weights(chosen), build_model(chosen, 10).get_weights())


@pytest.mark.parametrize(
    "gradients",
    [
        pytest.param("fp32", id="whole", marks=pytest.mark.slow),
        pytest.param("bf16", id="truncated", marks=pytest.mark.nightly),
    ],
)
def test_steps_of_three_executors_are_kerass(submit: Callable[..., Submitted], tmp_path: Path, gradients: str) -> None:
    """Gradients and weights cross between JVMs, in slices of different lengths."""
    chosen = recipe("auto", optimizer=OPTIMIZERS["sgd"], train=66, gradients=gradients)
    data, output = write_rows(tmp_path / "data", digit_rows(66)), tmp_path / "model"
    job = Path(__file__).parent.parent / "training" / "killing_job.py"
    run = submit(job, data, output, "[]", chosen.model_dump_json(), master="local-cluster[3,1,1024]")
    assert run.summary["workers"] == 3
    share = 1e-3 if gradients == "fp32" else 2**-6  # 2^-7 of each part, and parts may cancel
    ours, start = insitu.load(str(output)).model.get_weights(), build_model(chosen, 10).get_weights()
    assert_equal(ours, keras_weights(chosen), start, share=share)


@pytest.mark.parametrize(("workers", "taken"), [(1, "mkldnn"), (2, "mklblas")])
def test_auto_takes_the_engine_type_that_works(spark: SparkSession, data: str, workers: int, taken: str) -> None:
    layout, chosen = Layout(workers, workers_per_executor=workers, threads=2 // workers), recipe("auto")
    settled = bigdl.BigdlEngine(spark).settle(chosen, layout, open_data(chosen, data), begun=None)
    assert (settled.training.bigdl.engine_type, settled.training.precision) == (taken, "fp32")


def test_fewer_threads_than_cores(spark: SparkSession, data: str, tmp_path: Path) -> None:
    """The model directory says what was settled."""
    workers: list[Event] = []
    chosen = recipe("auto", optimizer=OPTIMIZERS["sgd"], threads=1)
    output = str(tmp_path / "model")
    insitu.train(spark, chosen, data=data, output=output, listener=workers.append)
    assert [event["threads"] for event in workers if event["event"] == "worker"] == [1]
    stored = load(Path(output) / artifact.RECIPE, [])
    assert (stored.training.bigdl.engine_type, stored.training.threads) == ("mkldnn", 1)


@pytest.mark.parametrize(("engine_type", "workers"), [("mkldnn", 1), ("mklblas", 2)])
def test_clipped_and_weighted_steps_are_kerass(
    spark: SparkSession, data: str, tmp_path: Path, engine_type: str, workers: int
) -> None:
    weighted: dict[str, Any] = {"optimizer": OPTIMIZERS["sgd"], "class_weight": "balanced", "workers": workers}
    chosen = recipe(engine_type, **weighted, clip_norm=0.5)
    ours = bigdl_weights(spark, chosen, data, tmp_path / "model")
    counts = np.bincount(digit_rows()["label"][:TRAIN], minlength=10)
    start = build_model(chosen, 10).get_weights()
    assert_equal(ours, keras_weights(chosen, (TRAIN / (10 * counts)).astype(np.float32)), start)
    free = recipe(engine_type, **weighted)
    with pytest.raises(AssertionError):
        assert_equal(ours, keras_weights(free, (TRAIN / (10 * counts)).astype(np.float32)), start)


def multilabel_rows() -> dict[str, list[Any]]:
    """The digits as what they are besides: small, odd, a multiple of three."""
    return changed(digit_rows(), "label", lambda i, digit: [int(digit < 5), digit % 2, int(digit % 3 == 0)])


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_multilabel_steps_are_kerass(spark: SparkSession, tmp_path: Path, class_weight: str) -> None:
    data = write_rows(tmp_path / "data", multilabel_rows())
    chosen = recipe("mkldnn", kind="multilabel", optimizer=OPTIMIZERS["sgd"], class_weight=class_weight)
    labels = np.array(multilabel_rows()["label"][:TRAIN], np.float32)
    positive = labels.mean(axis=0)
    weights = np.stack([positive, 1 - positive]) if class_weight == "balanced" else None
    ours = bigdl_weights(spark, chosen, data, tmp_path / "model")
    theirs = keras_weights(chosen, weights, labels=labels)
    assert_equal(ours, theirs, build_model(chosen, labels.shape[1]).get_weights())


def test_each_validation_row_is_scored_once(spark: SparkSession, tmp_path: Path) -> None:
    """One worker has as many as two calls score, the other one more: it is done a call later."""
    rows = digit_rows(train=20, validation=2 * 8 * 2 + 1)
    tree = recipe("mklblas", workers=2, optimizer=OPTIMIZERS["sgd"]).model_dump(mode="json")
    tree["training"] |= {"global_batch": 2, "epochs": 1}
    output = str(tmp_path / "model")
    summary = insitu.train(spark, parse(tree), data=write_rows(tmp_path / "data", rows), output=output)
    decode = insitu.data.decode.decode
    images = np.stack([decode(image, size=SIZE, channels=1) for image in rows["image"][20:]])
    scores = insitu.load(output).model.predict(images, verbose=0)
    loss = tf.keras.losses.sparse_categorical_crossentropy(np.array(rows["label"][20:]), scores)
    assert summary["metrics"]["loss"] == pytest.approx(float(np.mean(loss)), rel=1e-4)


def test_truncated_exchange_ends_near_the_exact_one(
    spark: SparkSession, data: str, tmp_path: Path, exact: tuple[Recipe, list[np.ndarray]]
) -> None:
    """Sixteen bits keep eight of a gradient's precision: each step is off by 2^-7 of its length at the most."""
    chosen, theirs = exact
    truncated = chosen.model_copy(update={"training": chosen.training.model_copy(update={"gradients": "bf16"})})
    ours = bigdl_weights(spark, truncated, data, tmp_path / "model")
    assert_equal(ours, theirs, build_model(chosen, 10).get_weights(), share=2**-7)
    assert any(not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_output_that_the_hosts_do_not_share_is_named(
    spark: SparkSession, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver wrote is not where a worker reads it."""
    monkeypatch.setattr(bigdl, "write_start", lambda converted, weights, uri: None)
    with pytest.raises(UserError, match=r"--output: rank 0 on .* does not find file://.*/initial, which .*; name "):
        bigdl_weights(spark, recipe("mkldnn", optimizer=OPTIMIZERS["sgd"]), data, tmp_path / "model")


def test_worker_that_is_made_again_publishes_its_own_weights(
    spark: SparkSession, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Spark repeats a task that could not read: what the first one published must not be read by others."""
    found: list[np.ndarray] = []

    def make_twice(session: SparkSession, settings: dict[str, Any], **_: Any) -> None:
        jvm: Any = session.sparkContext._jvm
        trainer = jvm.com.intel.analytics.bigdl.insitu.Trainer(session._jsparkSession, json.dumps(settings))
        parameters = Path(settings["initial"].removeprefix("file://")) / "parameters"
        hidden = parameters.rename(parameters.with_name("hidden"))
        with pytest.raises(Py4JJavaError, match="FileNotFound"):
            trainer.start()
        hidden.rename(parameters)
        trainer.start()
        block = jvm.org.apache.spark.storage.TestBlockId(f"{settings['run']}-weights-0")
        blocks = jvm.org.apache.spark.SparkEnv.get().blockManager()
        found.append(np.frombuffer(blocks.getLocalBytes(block).get().toByteBuffer().array(), "<f4"))
        blocks.releaseLock(block, jvm.scala.Option.empty())
        found.append(np.fromfile(parameters, "<f4", count=len(found[0])))
        trainer.close()
        raise LookupError("enough")

    monkeypatch.setattr(bigdl, "Trainer", make_twice)
    with pytest.raises(LookupError, match="enough"):
        bigdl_weights(spark, recipe("mklblas", workers=2, optimizer=OPTIMIZERS["adam"]), data, tmp_path / "model")
    published, initial = found
    assert np.abs(initial).max() > 0
    np.testing.assert_array_equal(published, initial)

"""What a worker builds from a job."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from insitu.data.columns import ImageColumn, LabelColumn
from insitu.data.inputs import ImageInput
from insitu.data.pipeline import Source
from insitu.data.plan import Rows, plan_shards
from insitu.data.png import encode_png
from insitu.recipe import Recipe, parse
from insitu.training.engines.base import TrainingJob
from insitu.training.weights import load_weights, save_weights
from insitu.training.worker import build_model, distributed_batches, learning_rate, training_model

SIZE, CLASSES, ROWS = 31, 3, 12


def recipe(**training: Any) -> Recipe:
    settings = {"epochs": 2, "global_batch": 4, "precision": "fp32", "workers": 1}
    return parse(
        {
            "task": {"kind": "multiclass", "classes": ["a", "b", "c"]},
            "data": {"size": [SIZE, SIZE], "channels": 1},
            "model": {"name": "squeezenet"},
            "training": {**settings, "optimizer": {"name": "adam", "learning_rate": 0.001}, **training},
        }
    )


@pytest.fixture(autouse=True)
def fp32_afterwards() -> Any:
    yield
    tf.keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    """A job of one worker on a dataset whose image i is grey level i, labelled i modulo 3."""
    images = [encode_png(np.full((SIZE, SIZE), level, np.uint8)) for level in range(ROWS)]
    table = pa.table({"image": images, "label": pa.array([level % CLASSES for level in range(ROWS)], pa.int64())})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = [Rows(f"file://{tmp_path}/rows.parquet", 0, np.arange(ROWS, dtype=np.int32))]
    plan = plan_shards(rows, workers=1, local_batch=4, window_rows=ROWS, seed=1)
    initial = f"file://{tmp_path}/initial.npz"
    given = recipe()
    save_weights([np.full(w.shape, 0.01, w.dtype) for w in build_model(given, CLASSES).get_weights()], initial)
    image = ImageInput(ImageColumn("image", "encoded"), (SIZE, SIZE), 1)
    source = Source("pyarrow", image, LabelColumn("label", "integer"), (), "int64")
    return TrainingJob(
        recipe=given,
        class_names=("a", "b", "c"),
        source=source,
        train=plan,
        validation=plan,
        class_weights=None,
        initial_weights=initial,
        scratch=f"file://{tmp_path}",
        checkpoints=f"file://{tmp_path}/checkpoints",
        first_epoch=0,
        last_epoch=2,
        train_trunk=True,
    )


def test_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    first, again, other = (build_model(recipe(seed=seed), CLASSES).get_weights() for seed in (1, 1, 2))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("precision", "computes_in"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_precision_is_the_trunks_and_scores_stay_float32(precision: str, computes_in: str) -> None:
    model = build_model(recipe(precision=precision), CLASSES)
    assert model.get_layer("conv1").compute_dtype == computes_in
    assert {weight.dtype.name for weight in model.weights} == {"float32"}
    scores = model(np.zeros((2, SIZE, SIZE, 1), np.uint8))
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(scores, axis=1), 1, rtol=1e-6)


def test_head_follows_the_task() -> None:
    tree = recipe().model_dump() | {"task": {"kind": "multilabel"}}
    assert build_model(parse(tree), CLASSES).get_layer("scores").activation is tf.keras.activations.sigmoid


def test_training_starts_from_the_jobs_weights(job: TrainingJob) -> None:
    assert job.initial_weights
    for weight in training_model(job, initial=load_weights(job.initial_weights)).get_weights():
        np.testing.assert_array_equal(weight, np.full_like(weight, 0.01))


def test_frozen_trunk_trains_the_head_alone(job: TrainingJob) -> None:
    model = training_model(replace(job, train_trunk=False))
    before = model.get_weights()
    model.fit(np.full((4, SIZE, SIZE, 1), 9, np.uint8), np.array([0, 1, 2, 0]), verbose=0)
    changed = [not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)]
    names = {weight.name for weight, new in zip(model.weights, changed, strict=True) if new}
    assert names <= {"head/kernel:0", "head/bias:0"}
    assert "head/bias:0" in names


def test_optimizer_has_the_recipes_settings(job: TrainingJob) -> None:
    settings = {"name": "lars", "learning_rate": 0.5, "momentum": 0.8, "weight_decay": 0.01, "base_batch": 4}
    optimizer = training_model(replace(job, recipe=recipe(optimizer=settings))).optimizer
    assert type(optimizer).__name__ == "LARS"
    config = optimizer.get_config()
    assert [config[key] for key in ("learning_rate", "momentum", "weight_decay")] == pytest.approx([0.5, 0.8, 0.01])


def test_class_weights_reach_the_loss(job: TrainingJob) -> None:
    images, labels = np.zeros((4, SIZE, SIZE, 1), np.uint8), np.full(4, 2)
    plain = training_model(job).evaluate(images, labels, verbose=0)
    weights = np.array([1, 1, 3], np.float32)
    weighted = training_model(replace(job, class_weights=weights)).evaluate(images, labels, verbose=0)
    assert weighted == pytest.approx(3 * plain, rel=1e-5)


def batches(job: TrainingJob, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = iter(distributed_batches(job, threads=1))
    return [(images.numpy(), labels.numpy()) for images, labels in (next(found) for _ in range(count))]


def test_an_epochs_batches_hold_every_row_once(job: TrainingJob) -> None:
    images, labels = (np.concatenate(part) for part in zip(*batches(job, job.train.steps), strict=True))
    assert (images.shape, images.dtype) == ((ROWS, SIZE, SIZE, 1), np.uint8)
    assert sorted(images[:, 0, 0, 0]) == list(range(ROWS))
    np.testing.assert_array_equal(images[:, 0, 0, 0] % CLASSES, labels)


def test_later_phase_goes_on_where_the_first_ended(job: TrainingJob) -> None:
    whole = batches(job, 2 * job.train.steps)
    second = batches(replace(job, first_epoch=1), job.train.steps)
    for ours, theirs in zip(second, whole[job.train.steps :], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ({"kind": "constant"}, [1, 1, 1, 1]),
        ({"kind": "step", "at_epochs": [1, 3], "factor": 0.5}, [1, 0.5, 0.5, 0.25]),
        ({"kind": "epoch", "from_epoch": 2, "factor": 0.5}, [1, 1, 0.5, 0.25]),
        ({"kind": "plateau"}, [1, 1, 1, 1]),  # its multiplier needs the validation loss
    ],
)
def test_rate_follows_the_recipes_decay(decay: dict[str, Any], expected: list[float]) -> None:
    settings = {"optimizer": {"name": "adam", "learning_rate": 1}, "schedule": {"decay": decay}}
    rate = learning_rate(recipe(**settings), steps_per_epoch=5)
    assert [rate.at(epoch * 5) for epoch in range(4)] == expected


def test_rate_warms_up_from_the_unscaled_rate_where_the_batch_scales_it() -> None:
    optimizer = {"name": "adam", "learning_rate": 0.25, "base_batch": 2}
    given = recipe(optimizer=optimizer, global_batch=8, schedule={"warmup_epochs": 1})
    rate = learning_rate(given, steps_per_epoch=3)
    assert [rate.at(step) for step in range(5)] == [0.5, 0.75, 1, 1, 1]


def test_rate_warms_up_from_zero_where_it_is_given_as_it_is() -> None:
    given = recipe(optimizer={"name": "adam", "learning_rate": 1}, schedule={"warmup_epochs": 0.5})
    rate = learning_rate(given, steps_per_epoch=8)
    assert [rate.at(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]

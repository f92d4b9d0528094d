"""Batch normalisation's moving statistics, in what a BigDL run leaves."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

import insitu
from insitu.data.decode import decode
from insitu.recipe import parse
from insitu.training.worker import build_model
from training.digits_rows import TRAIN, digit_rows, recipe_tree, write_rows
from training.test_engines import end_after_checkpoint

SIZE = (64, 64)


@pytest.mark.slow
def test_statistics_are_the_mean_over_workers_and_outlive_a_stop(spark: SparkSession, tmp_path: Path) -> None:
    """With weights that stand still the first normalisation sees the same in every step, on any share of the rows."""
    train, epochs = 16, 3
    rows = digit_rows(train, validation=2)
    tree = recipe_tree(
        engine="bigdl",
        workers=2,
        epochs=epochs,
        global_batch=train,
        optimizer={"name": "sgd", "learning_rate": 1e-12},
        checkpoint={"every_steps": 1},
    )
    tree["model"] = {"name": "resnet50"}
    recipe, data, output = parse(tree), write_rows(tmp_path / "data", rows), str(tmp_path / "model")
    with pytest.raises(LookupError, match="enough"):
        insitu.train(spark, recipe, data=data, output=output, listener=end_after_checkpoint(1))
    assert insitu.train(spark, recipe, data=data, output=output, resume=True)["resumed_from_step"] == 1
    keras_model = build_model(recipe, 10)
    images = np.stack([decode(image, size=(32, 32), channels=1) for image in rows["image"][:train]])
    for _ in range(epochs):
        keras_model(images, training=True)
    ours, theirs = (
        next(weight.numpy() for weight in model.weights if "moving_mean" in weight.name)
        for model in (insitu.load(output).model, keras_model)
    )
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.nightly
def test_a_resumed_run_publishes_the_statistics_that_it_was_validated_with(spark: SparkSession, tmp_path: Path) -> None:
    """Stopped in mid-epoch; the best epoch's weights are loaded at the end, and validated once more."""
    rows = digit_rows()
    tree = recipe_tree(
        engine="bigdl",
        workers=2,
        epochs=3,
        global_batch=16,
        optimizer={"name": "sgd", "momentum": 0.9, "learning_rate": 0.001},
        checkpoint={"every_steps": 3},
        early_stopping={"patience_epochs": 3},
    )
    tree["model"] = {"name": "densenet121"}
    tree["data"]["size"] = list(SIZE)
    data, output = write_rows(tmp_path / "data", rows), str(tmp_path / "model")
    with pytest.raises(LookupError, match="enough"):
        insitu.train(spark, parse(tree), data=data, output=output, listener=end_after_checkpoint(3))
    summary = insitu.train(spark, parse(tree), data=data, output=output, resume=True)
    assert summary["resumed_from_step"] == 3
    model = insitu.load(output).model
    images = np.stack([decode(image, size=SIZE, channels=1) for image in rows["image"][TRAIN:]])
    scores = model.predict(images, verbose=0)
    loss = tf.keras.losses.sparse_categorical_crossentropy(np.array(rows["label"][TRAIN:]), scores)
    assert summary["metrics"]["loss"] == pytest.approx(float(np.mean(loss)), rel=1e-3)
    variances = [variable.numpy() for variable in model.weights if "moving_variance" in variable.name]
    assert all(np.abs(variance - 1).max() > 0.01 for variance in variances), "none is as Keras starts it"

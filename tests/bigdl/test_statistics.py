"""Batch normalisation's moving statistics, in what a BigDL run leaves."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

import insitu
from insitu.data.decode import decode
from insitu.recipe import parse
from training.digits_rows import TRAIN, digit_rows, recipe_tree, write_rows
from training.test_engines import end_after_checkpoint

SIZE = (64, 64)


@pytest.mark.slow
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

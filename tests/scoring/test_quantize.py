"""A trained model's directory gets bf16 and INT8 beside it, no worse than allowed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

import insitu
from image_data import encode
from insitu import artifact
from insitu.errors import UserError
from insitu.recipe import parse
from insitu.scoring.dataframes import score
from insitu.scoring.quantize import quantize
from training.digits_rows import changed, digit_rows, recipe_tree, write_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows(train=1280, validation=320))


@pytest.fixture(scope="module")
def trained(spark: SparkSession, data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("trained") / "model")
    recipe = recipe_tree(epochs=4) | {
        "data": {"size": [64, 64], "channels": 1},
        "model": {"name": "mcnn", "options": {"width": 0.25}},
    }
    insitu.train(spark, parse(recipe), data=data, output=output)
    return output


@pytest.fixture(scope="module")
def quantised(
    spark: SparkSession, data: str, trained: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """The new directory, and the summary."""
    output = str(tmp_path_factory.mktemp("quantised") / "model")
    return output, quantize(spark, model=trained, data=data, output=output)


def test_int8_is_as_good_and_smaller(quantised: tuple[str, dict[str, Any]], trained: str) -> None:
    directory, summary = quantised
    metrics = artifact.read_json(Path(trained) / artifact.METRICS)
    assert summary["metric"] == "accuracy"
    assert summary["fp32"]["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-6)
    assert summary["fp32"]["accuracy"] > 0.8
    for precision in ("bf16", "int8"):
        if precision in summary:
            assert summary["fp32"]["accuracy"] - summary[precision]["accuracy"] <= 0.005
            files = list((Path(directory) / precision).iterdir())
            assert sorted(path.name for path in files) == ["model.bin", "model.xml"]
            assert sum(path.stat().st_size for path in files) == summary[precision]["bytes"]
    weights = {name: (Path(directory) / name / "model.bin").stat().st_size for name in ("bf16", "int8")}
    assert weights["int8"] < 0.7 * weights["bf16"]


def test_the_rest_of_the_directory_is_the_models(quantised: tuple[str, dict[str, Any]], trained: str) -> None:
    with artifact.verified(quantised[0], setting="model") as copy:
        for name in (artifact.MODEL, artifact.RECIPE, artifact.SIGNATURE, artifact.METRICS, "report/index.html"):
            assert (copy / name).read_bytes() == (Path(trained) / name).read_bytes()
        provenance = artifact.read_json(copy / artifact.PROVENANCE)
    before = artifact.read_json(Path(trained) / artifact.PROVENANCE)
    quantization = provenance.pop("quantization")
    assert provenance == before
    assert quantization["of_model"] == artifact.identity(trained)
    assert quantization["calibration"] == {"ranges": "minmax", "rows": 300, "seed": before["seed"]}


def test_scores_in_int8_agree(spark: SparkSession, quantised: tuple[str, dict[str, Any]], data: str) -> None:
    """int8 is what a quantised directory is scored in by itself."""
    frame = spark.read.parquet(data)
    by_default, exact = (
        np.array([row["scores"] for row in score(frame, quantised[0], precision=precision).collect()])
        for precision in (None, "fp32")
    )
    assert (by_default.argmax(axis=1) == exact.argmax(axis=1)).mean() >= 0.99
    assert np.abs(by_default - exact).max() > 1e-5


def test_a_changed_byte_of_the_ir_is_refused(
    spark: SparkSession, quantised: tuple[str, dict[str, Any]], data: str
) -> None:
    weights = Path(quantised[0]) / "int8" / "model.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(UserError, match=r"model_dir: .*int8/model\.bin is not what was written"):
            score(spark.read.parquet(data), quantised[0])
    finally:
        weights.write_bytes(whole)


def test_layers_go_back_to_floating_point_where_calibration_misleads(
    spark: SparkSession, data: str, trained: str, tmp_path: Path
) -> None:
    """Black training rows say nothing of the ranges of digits."""
    black = encode(np.zeros((8, 8), np.uint8))
    rows = changed(digit_rows(train=32, validation=320), "image", lambda row, image: black if row < 32 else image)
    misleading = write_rows(tmp_path / "data", rows)
    summary = quantize(spark, model=trained, data=misleading, output=str(tmp_path / "model"), calibration_rows=16)
    assert summary["restored"]
    assert summary["fp32"]["accuracy"] - summary["int8"]["accuracy"] <= 0.005


def test_mistakes_are_named(spark: SparkSession, data: str, trained: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": trained, "data": data, "output": str(tmp_path / "model")}
    with pytest.raises(UserError, match=r"--max-drop: -1, expected 0 or more"):
        quantize(spark, **given, max_drop=-1)
    with pytest.raises(UserError, match=r"--ranges: 'kl', expected one of minmax, histogram, percentile"):
        quantize(spark, **given, ranges="kl")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"--calibration-rows: 0, expected 1 or more"):
        quantize(spark, **given, calibration_rows=0)
    with pytest.raises(UserError, match=r"--output: .* exists"):
        quantize(spark, **given | {"output": trained})
    with pytest.raises(UserError, match=r"--model: .*nowhere is no model directory"):
        quantize(spark, **given | {"model": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match=r"--data: .*nowhere does not exist"):
        quantize(spark, **given | {"data": str(tmp_path / "nowhere")})
    assert not (tmp_path / "model").exists()

"""A trained model's directory gets bf16 and INT8 beside it, no worse than allowed, perhaps of fewer weights."""

import io
import re
import zipfile
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
from insitu.scoring.kernels import kernels
from insitu.scoring.quantize import quantize
from insitu.show import show
from report.browser import overflow
from report.pages import text
from training.digits_rows import changed, digit_rows, recipe_tree, write_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows(train=1280, validation=320))


@pytest.fixture(scope="module")
def trained(spark: SparkSession, data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("trained") / "model")
    recipe = recipe_tree(epochs=3) | {
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


@pytest.fixture(scope="module")
def compressed(
    spark: SparkSession, data: str, trained: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """The same of a model of which a fifth of the weights are zero, and the others share 31 values."""
    output = str(tmp_path_factory.mktemp("compressed") / "model")
    given: dict[str, Any] = {"model": trained, "data": data, "output": output}
    return output, quantize(spark, **given, max_drop=0.1, sparsity=0.2, clusters=32)


def words(directory: str) -> str:
    return text((Path(directory) / artifact.QUANTIZATION).read_text())


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
    numbers = sum(weight.size for weight in insitu.load(trained).model.get_weights())
    assert (Path(directory) / "int8/model.bin").stat().st_size < 1.4 * numbers


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
    frame = spark.read.parquet(data).limit(640)
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
    restored = artifact.read_json(tmp_path / "model" / artifact.PROVENANCE)["quantization"]["floating_point"]
    told = words(str(tmp_path / "model"))
    assert restored and "layers were taken back to floating point" in told
    assert set(restored) <= kernels(artifact.load_keras(Path(trained))).keys()
    assert all(name in told for name in restored)


def test_zeros_and_shared_values_are_in_the_files(compressed: tuple[str, dict[str, Any]], trained: str) -> None:
    directory, summary = compressed
    before = [kernel.numpy() for kernel in kernels(artifact.load_keras(Path(trained))).values()]
    after = [kernel.numpy() for kernel in kernels(artifact.load_keras(Path(directory))).values()]
    for old, new in zip(before, after, strict=True):
        assert (new == 0).sum() == int(0.2 * old.size)
        assert len(np.unique(new)) <= 32
    for precision, dtype in (("bf16", np.float16), ("int8", np.int8)):
        if precision in summary:
            stored = np.fromfile(Path(directory) / precision / "model.bin", dtype)
            assert (stored == 0).mean() >= 0.19  # it holds the biases too
            assert summary[precision]["zeros"] >= summary["pruned"]["zeros"]
    assert summary["fp32"]["zeros"] < 0.01
    assert summary["pruned"]["zeros"] == summary["clustered"]["zeros"] == pytest.approx(0.2, abs=0.001)
    assert summary["clustered"]["distinct_values"] == 32
    assert summary["fp32"]["distinct_values"] > 1000


def test_pruning_and_clustering_win_in_a_zip_archive(compressed: tuple[str, dict[str, Any]], trained: str) -> None:
    directory, summary = compressed
    assert summary["fp32"]["bytes"] == (Path(trained) / artifact.MODEL).stat().st_size
    assert summary["clustered"]["bytes"] == (Path(directory) / artifact.MODEL).stat().st_size
    assert summary["clustered"]["bytes"] == pytest.approx(summary["fp32"]["bytes"], rel=0.05)
    forms = [summary[form] for form in ("fp32", "pruned", "clustered", "int8")]
    zipped = [form["zipped_bytes"] for form in forms]
    assert zipped == sorted(zipped, reverse=True)
    assert zipped[2] < 0.4 * zipped[0]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.write(Path(directory) / artifact.MODEL)
    assert zipped[2] == pytest.approx(len(archive.getvalue()), abs=200)


def test_a_compressed_directory_is_of_the_new_weights(compressed: tuple[str, dict[str, Any]], trained: str) -> None:
    directory, summary = compressed
    with artifact.verified(directory, setting="model") as copy:
        metrics = artifact.read_json(copy / artifact.METRICS)
        quantization = artifact.read_json(copy / artifact.PROVENANCE)["quantization"]
        names = {path.name for path in copy.iterdir()}
    assert metrics["accuracy"] == pytest.approx(summary["clustered"]["accuracy"], abs=1e-6)
    assert quantization["found"]["clustered"]["metrics"] == metrics
    assert quantization["compression"] == {"sparsity": 0.2, "clusters": 32}
    assert quantization["of_model"] == artifact.identity(trained)
    assert quantization["found"]["pruned"]["stored"]["zipped_bytes"] == summary["pruned"]["zipped_bytes"]
    assert not names & {artifact.PREDICTIONS, "report"}


def test_the_page_holds_the_numbers(compressed: tuple[str, dict[str, Any]]) -> None:
    directory, summary = compressed
    told = words(directory)
    for form in ("fp32", "pruned", "clustered", "bf16", "int8"):
        if form in summary:
            found = summary[form]
            assert f"{form} {found['accuracy']:.4f}" in told
            assert f"{form} {found['bytes']:,} {found['zipped_bytes']:,}" in told
            assert f"{100 * found['zeros']:.1f} % {found['distinct_values']:,} {found['accuracy']:.4f}" in told
    assert "(minmax) were found on 300 training rows" in told
    assert "the smallest 20.0 % of each layer's weights are zero" in told
    assert "share at most 32 values" in told
    page = (Path(directory) / artifact.QUANTIZATION).read_text()
    rows = re.search(r"Recall of each class.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert rows is not None
    changes = [float(change) for change in re.findall(r"([+-][\d.]+)</td></tr>", rows[1])]
    assert len(changes) == 10 and changes == sorted(changes)
    assert "change of recall from fp32" in page


@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_is_as_wide_as_the_screen(compressed: tuple[str, dict[str, Any]], width: int, tmp_path: Path) -> None:
    assert overflow(Path(compressed[0]) / artifact.QUANTIZATION, width=width, scratch=tmp_path) == 0


def test_show_tells_of_the_forms(compressed: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    directory, summary = compressed
    show(directory)
    told = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("quantised"))
    assert f"pruned {summary['pruned']['accuracy']:.4f}" in told
    assert told.endswith(f"int8 {summary['int8']['accuracy']:.4f} accuracy, see quantization.html")


def test_too_few_weights_or_values_are_refused(spark: SparkSession, data: str, trained: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": trained, "data": data, "output": str(tmp_path / "model")}
    with pytest.raises(UserError, match=r"--sparsity: pruned reaches accuracy .*nothing is published; lower it"):
        quantize(spark, **given, sparsity=0.97)
    with pytest.raises(UserError, match=r"--clusters: clustered reaches accuracy .*nothing is published; raise it"):
        quantize(spark, **given, clusters=2)
    assert not (tmp_path / "model").exists()


def test_mistakes_are_named(spark: SparkSession, data: str, trained: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": trained, "data": data, "output": str(tmp_path / "model")}
    with pytest.raises(UserError, match=r"--max-drop: -1, expected 0 or more"):
        quantize(spark, **given, max_drop=-1)
    with pytest.raises(UserError, match=r"--ranges: 'kl', expected one of minmax, histogram, percentile"):
        quantize(spark, **given, ranges="kl")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"--calibration-rows: 0, expected 1 or more"):
        quantize(spark, **given, calibration_rows=0)
    for sparsity in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"--sparsity: .*, expected 0 or more, less than 1"):
            quantize(spark, **given, sparsity=sparsity)
    for clusters in (1, 257):
        with pytest.raises(UserError, match=rf"--clusters: {clusters}, expected 2 to 256"):
            quantize(spark, **given, clusters=clusters)
    with pytest.raises(UserError, match=r"--output: .* exists"):
        quantize(spark, **given | {"output": trained})
    with pytest.raises(UserError, match=r"--model: .*nowhere is no model directory"):
        quantize(spark, **given | {"model": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match=r"--data: .*nowhere does not exist"):
        quantize(spark, **given | {"data": str(tmp_path / "nowhere")})
    assert not (tmp_path / "model").exists()

"""From a model directory to one that also holds bf16 and INT8 for OpenVINO, neither worse than allowed."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from insitu import artifact
from insitu.cluster.filesystem import qualify
from insitu.errors import UserError
from insitu.provenance import code_version, environment
from insitu.recipe import load
from insitu.report.write import REPORT
from insitu.scoring import ir
from insitu.scoring.compress import MOST_CLUSTERS, cluster, prune
from insitu.scoring.judge import BATCH, CLUSTERED, ORIGINAL, PRUNED, Judge
from insitu.scoring.kernels import kernels, layer_of
from insitu.scoring.quantization_page import write_page
from insitu.scoring.quantizer import RANGES, Ranges, quantized, quantized_within
from insitu.scoring.splits import Splits, read_splits

if TYPE_CHECKING:
    import keras
    from pyspark.sql import SparkSession

_REMADE = (artifact.CHECKSUMS, artifact.INT8.rstrip("/"), artifact.BF16.rstrip("/"), artifact.QUANTIZATION)


def quantize(
    spark: "SparkSession",
    *,
    model: str,
    data: str,
    output: str,
    max_drop: float = 0.005,
    ranges: Ranges = "minmax",
    calibration_rows: int = 300,
    sparsity: float = 0.0,
    clusters: int | None = None,
) -> dict[str, Any]:
    """Publish a copy of a model directory that also holds `bf16/`, `int8/` and a page that compares them.

    INT8 is NNCF's post-training quantisation; where that costs more than `max_drop`, its accuracy-aware form. The
    driver does all of it but the scan of the data. Where `sparsity` or `clusters` change the weights, the Keras model
    of the copy, its `metrics.json` and the scores of its `reference.parquet` are of the changed ones, and the
    predictions and the report of the training, which are not, are left out.

    Args:
        spark: the session whose executors scan the data.
        model: a model directory of jobs/train_cnn.py.
        data: a labelled dataset, as a rule the training data; training rows calibrate, validation rows measure.
        output: the model directory to make; nothing may be there yet.
        max_drop: of the metric, from the model as it is trained to any form that is made of it: macro AUC where a row
            may have several labels, accuracy where it has one.
        ranges: see `insitu.scoring.quantizer.RANGES`.
        calibration_rows: drawn from the training rows by the recipe's seed.
        sparsity: the share of each convolution's and dense layer's weights that become zero first, 0..1.
        clusters: the values that the weights of each of them share then; None leaves them.

    Returns:
        the summary: `output`, `metric`, `restored` (whether layers had to stay in floating point), `seconds`, and by
        form, of `fp32` (the model as it is trained), `pruned`, `clustered`, `bf16` and `int8` those that are made, the
        metric, `images_per_second` (of the inference alone), `bytes` of its files, `zipped_bytes` of a zip archive of
        them, and of its convolutions' and dense layers' weights the share of `zeros` and the `distinct_values` of the
        layer that has the most.

    Raises:
        UserError: anything that the user can mend; a form that is worse than allowed.
    """
    started = time.time()
    _check(max_drop, ranges, calibration_rows, sparsity, clusters)
    model, data, output = (
        qualify(spark, setting, path) for setting, path in (("--model", model), ("--data", data), ("--output", output))
    )
    artifact.check_free(output)
    with (
        artifact.verified(model, setting="--model", part=artifact.MODEL) as source,
        tempfile.TemporaryDirectory(prefix="insitu-") as scratch,
    ):
        recipe = load(source / artifact.RECIPE, [])
        splits = read_splits(spark, recipe, data, calibration_rows=calibration_rows, batch=BATCH)
        made = Path(scratch) / "model"
        shutil.copytree(source, made, ignore=shutil.ignore_patterns(*_REMADE))
        judge = Judge(recipe, splits.validation, max_drop)
        changed, network = _compressed(made, judge, _changes(sparsity, clusters))
        if ir.has_bf16():
            _keep(network, made, "bf16", judge)
        restored, small = _to_int8(network, splits, judge, ranges)
        stored = _keep(small, made, "int8", judge)
        provenance = artifact.read_json(source / artifact.PROVENANCE)
        facts = {
            "of_model": artifact.identity(str(source)),
            "data": {"uri": data, "fingerprint": splits.dataset.fingerprint, "rows": splits.validation.rows},
            "compression": {"sparsity": sparsity, "clusters": clusters},
            "calibration": {"ranges": ranges, "rows": splits.calibration.rows, "seed": recipe.training.seed},
            "metric": judge.metric,
            "max_drop": max_drop,
            "restored": restored,
            "floating_point": [layer_of(kernel, changed) for kernel in stored if kernel.dtype != np.int8],
            "found": {form: asdict(measured) for form, measured in judge.found.items()},
            "code": code_version(),
            "environment": environment(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "earlier": provenance.get("quantization"),
        }
        artifact.write_json(made / artifact.PROVENANCE, provenance | {"quantization": facts})
        write_page(made)
        artifact.publish(made, output)
    return {
        "output": output,
        "metric": judge.metric,
        "restored": restored,
        **{form: judge.told(form) for form in judge.found},
        "seconds": round(time.time() - started, 1),
    }


def _changes(sparsity: float, clusters: int | None) -> dict[str, Callable[["keras.Model"], None]]:
    """What is done to the weights before quantisation, by the name of the form that it gives."""
    changes: dict[str, Callable[[keras.Model], None]] = {}
    if sparsity:
        changes[PRUNED] = partial(prune, sparsity=sparsity)
    if clusters is not None:
        changes[CLUSTERED] = partial(cluster, clusters=clusters)
    return changes


def _compressed(
    made: Path, judge: Judge, changes: dict[str, Callable[["keras.Model"], None]]
) -> tuple["keras.Model", Any]:
    """Measure the Keras model of a directory before and after each change of its weights.

    Returns:
        the last one, and the `openvino.Model` of it.
    """

    def measured(form: str) -> tuple["keras.Model", Any, np.ndarray]:
        model = artifact.load_keras(made)
        network = ir.convert(model)
        weights = [kernel.numpy() for kernel in kernels(model).values()]
        scores = judge.measure(form, network, precision="fp32", files=[made / artifact.MODEL], kernels=weights)
        return model, network, scores

    model, network, _ = measured(ORIGINAL)
    for form, change in changes.items():
        change(model)
        model.save(made / artifact.MODEL)
        model, network, scores = measured(form)
        _refer_to(made / artifact.REFERENCE, scores)
        artifact.write_json(made / artifact.METRICS, judge.found[form].metrics)
        (made / artifact.PREDICTIONS).unlink(missing_ok=True)
        shutil.rmtree((made / REPORT).parent, ignore_errors=True)
    return model, network


def _refer_to(reference: Path, scores: np.ndarray) -> None:
    """Have the reference that scored rows are compared with hold the scores of the changed weights."""
    if not reference.exists():
        return
    table = pq.read_table(reference)
    drawn = np.linspace(0, len(scores) - 1, len(table)).astype(np.int64)
    column = pa.array(scores[drawn].tolist(), table.schema.field("scores").type)
    pq.write_table(table.set_column(table.schema.get_field_index("scores"), "scores", column), reference)


def _keep(network: Any, made: Path, precision: ir.Precision, judge: Judge) -> list[np.ndarray]:
    """Store a network, measure it as it is stored, and give its weights as `ir.kernels` does."""
    directory = made / precision
    ir.save(network, directory, precision=precision)
    weights = ir.kernels(directory / ir.XML)
    files = list(directory.iterdir())
    judge.measure(precision, directory / ir.XML, precision=precision, files=files, kernels=weights)
    return weights


def _to_int8(network: Any, splits: Splits, judge: Judge, ranges: Ranges) -> tuple[bool, Any]:
    """Whether layers had to be taken back to floating point, and the `openvino.Model` of INT8."""
    calibration = splits.calibration
    batches = -(-calibration.rows // BATCH)
    print(f"quantize: calibrating on {calibration.rows} rows, {ranges}", file=sys.stderr)
    small = quantized(network, calibration, batches=batches, ranges=ranges)
    if not judge.is_worse(small, "int8"):
        return False, small
    print("quantize: that costs too much; taking layers back to floating point", file=sys.stderr)
    return True, quantized_within(
        network,
        calibration,
        splits.validation,
        judge.metric_of,
        batches=batches,
        ranges=ranges,
        max_drop=judge.left(),
    )


def _check(max_drop: float, ranges: str, calibration_rows: int, sparsity: float, clusters: int | None) -> None:
    if not 0 <= max_drop < 1:
        raise UserError("--max-drop", f"{max_drop:g}, expected 0 or more, less than 1", "0.005 is usual")
    if ranges not in RANGES:
        raise UserError("--ranges", f"{ranges!r}, expected one of {', '.join(RANGES)}", "take one of them")
    if calibration_rows < 1:
        raise UserError("--calibration-rows", f"{calibration_rows}, expected 1 or more", "300 is usual")
    if not 0 <= sparsity < 1:
        raise UserError("--sparsity", f"{sparsity:g}, expected 0 or more, less than 1", "begin with 0.3")
    if clusters is not None and not 2 <= clusters <= MOST_CLUSTERS:
        raise UserError("--clusters", f"{clusters}, expected 2 to {MOST_CLUSTERS}", "begin with 64")

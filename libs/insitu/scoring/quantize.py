"""From a model directory to one that also holds bf16 and INT8 for OpenVINO, neither worse than allowed.

Legend: N rows, K classes.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu import artifact
from insitu.cluster.filesystem import qualify
from insitu.cluster.machine import usable_cores
from insitu.cluster.progress import Progress, shown
from insitu.errors import UserError
from insitu.metrics import Metrics, evaluate
from insitu.provenance import code_version, environment
from insitu.recipe import Recipe, load
from insitu.scoring import ir
from insitu.scoring.quantizer import RANGES, Batches, Ranges, quantized, quantized_within
from insitu.scoring.splits import Split, read_splits

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_BATCH = 16


@dataclass(frozen=True)
class Measured:
    """What a precision gives on the validation split.

    Attributes:
        metrics: of all of it.
        images_per_second: of the inference alone, of the median batch, on all cores of the driver.
        bytes: of its files.
    """

    metrics: Metrics
    images_per_second: float
    bytes: int


def quantize(
    spark: "SparkSession",
    *,
    model: str,
    data: str,
    output: str,
    max_drop: float = 0.005,
    ranges: Ranges = "minmax",
    calibration_rows: int = 300,
) -> dict[str, Any]:
    """Publish a copy of a model directory that also holds `bf16/` and `int8/`.

    INT8 is NNCF's post-training quantisation; where that costs more than `max_drop`, its accuracy-aware form. The
    driver does all of it but the scan of the data.

    Args:
        spark: the session whose executors scan the data.
        model: a model directory of jobs/train_cnn.py.
        data: a labelled dataset, as a rule the training data; training rows calibrate, validation rows measure.
        output: the model directory to make; nothing may be there yet.
        max_drop: of the metric: macro AUC where a row may have several labels, accuracy where it has one.
        ranges: see `insitu.scoring.quantizer.RANGES`.
        calibration_rows: drawn from the training rows by the recipe's seed.

    Returns:
        the summary: `output`, `metric`, `restored` (whether layers had to stay in floating point), `seconds`, and by
        precision the metric, `images_per_second` (of the inference alone) and `bytes`.

    Raises:
        UserError: anything that the user can mend; a precision that is worse than allowed.
    """
    started = time.time()
    _check(max_drop, ranges, calibration_rows)
    model, data, output = (
        qualify(spark, setting, path) for setting, path in (("--model", model), ("--data", data), ("--output", output))
    )
    artifact.check_free(output)
    with (
        artifact.verified(model, setting="--model", part=artifact.MODEL) as source,
        tempfile.TemporaryDirectory(prefix="insitu-") as scratch,
    ):
        recipe = load(source / artifact.RECIPE, [])
        splits = read_splits(spark, recipe, data, calibration_rows=calibration_rows, batch=_BATCH)
        made = Path(scratch) / "model"
        shutil.copytree(source, made, ignore=shutil.ignore_patterns(artifact.CHECKSUMS, "int8", "bf16"))
        network = ir.convert(artifact.load_keras(source))
        judge = _Judge(recipe, splits.validation, max_drop)
        found = {"fp32": judge.measure(network, "fp32", made / artifact.MODEL)}
        if ir.has_bf16():
            ir.save(network, made / "bf16", precision="bf16")
            found["bf16"] = judge.measure(made / "bf16" / ir.XML, "bf16", made / "bf16")
            judge.refuse_worse(found, "bf16")
        calibration, validation = splits.calibration, splits.validation
        batches = -(-calibration.rows // _BATCH)
        print(f"quantize: calibrating on {calibration.rows} rows, {ranges}", file=sys.stderr)
        small = quantized(network, calibration, batches=batches, ranges=ranges)
        restored = judge.is_worse(found["fp32"].metrics, judge.metrics(small, "int8"))
        if restored:
            print("quantize: that costs too much; taking layers back to floating point", file=sys.stderr)
            small = quantized_within(
                network, calibration, validation, judge.metric_of, batches=batches, ranges=ranges, max_drop=max_drop
            )
        ir.save(small, made / "int8", precision="int8")
        found["int8"] = judge.measure(made / "int8" / ir.XML, "int8", made / "int8")
        judge.refuse_worse(found, "int8")
        summary = {
            "output": output,
            "metric": judge.metric,
            "restored": restored,
            **{precision: judge.told(measured) for precision, measured in found.items()},
            "seconds": round(time.time() - started, 1),
        }
        provenance = artifact.read_json(source / artifact.PROVENANCE)
        provenance["quantization"] = {
            "of_model": artifact.identity(str(source)),
            "data": {"uri": data, "fingerprint": splits.dataset.fingerprint},
            "calibration": {"ranges": ranges, "rows": calibration.rows, "seed": recipe.training.seed},
            "max_drop": max_drop,
            "restored": restored,
            "found": {precision: asdict(measured) for precision, measured in found.items()},
            "code": code_version(),
            "environment": environment(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        }
        artifact.write_json(made / artifact.PROVENANCE, provenance)
        artifact.publish(made, output)
    return summary


class _Judge:
    """What a network is worth on the validation split.

    Attributes:
        metric: `auc_macro` or `accuracy`, by the task.
    """

    def __init__(self, recipe: Recipe, validation: Split, max_drop: float) -> None:
        self._task = recipe.task
        self._validation = validation
        self._max_drop = max_drop
        self.metric = "auc_macro" if recipe.task.kind == "multilabel" else "accuracy"
        self._speed = 0.0

    def measure(self, network: Any, precision: ir.Precision, files: Path) -> Measured:
        metrics = self.metrics(network, precision)
        size = files.stat().st_size if files.is_file() else sum(path.stat().st_size for path in files.iterdir())
        print(
            f"quantize: {precision} {self.metric} {self._value(metrics):.4f}, {self._speed:.1f} images/s",
            file=sys.stderr,
        )
        return Measured(metrics, round(self._speed, 1), size)

    def metrics(self, network: Any, precision: ir.Precision) -> Metrics:
        own = network if isinstance(network, Path) else network.clone()
        predict = ir.compile_network(own, precision=precision, rows=_BATCH, threads=usable_cores())
        return self._evaluate(predict, self._validation)

    def metric_of(self, predict: Callable[[np.ndarray], np.ndarray], batches: Batches) -> float:
        return self._value(self._evaluate(predict, batches))

    def told(self, measured: Measured) -> dict[str, float]:
        """For the summary."""
        speed = {"images_per_second": measured.images_per_second, "bytes": measured.bytes}
        return {self.metric: round(self._value(measured.metrics), 6), **speed}

    def is_worse(self, reference: Metrics, other: Metrics) -> bool:
        return self._value(reference) - self._value(other) > self._max_drop

    def refuse_worse(self, found: dict[str, Measured], precision: str) -> None:
        reference, other = found["fp32"].metrics, found[precision].metrics
        if self.is_worse(reference, other):
            raise UserError(
                "--max-drop",
                f"{precision} reaches {self.metric} {self._value(other):.4f} and fp32 {self._value(reference):.4f}, "
                f"more than {self._max_drop:g} apart; nothing is published",
                "raise it, calibrate on more rows, or find the ranges otherwise",
            )

    def _evaluate(self, predict: Callable[[np.ndarray], np.ndarray], batches: Batches) -> Metrics:
        labels: list[np.ndarray] = []
        scores: list[np.ndarray] = []
        seconds: list[float] = []

        def progress() -> Progress:
            return Progress(sum(map(len, labels)), self._validation.rows)

        with shown(progress, name="quantize: measuring", what="row", stream=sys.stderr):
            for inputs, truth in batches:
                begun = time.perf_counter()
                scores.append(predict(inputs))
                seconds.append((time.perf_counter() - begun) / len(inputs))
                labels.append(truth)
        self._speed = 1 / median(seconds)
        assert self._task.classes is not None
        found = np.concatenate(scores)
        return evaluate(
            kind=self._task.kind,
            labels=np.concatenate(labels),
            scores=np.nan_to_num(found),  # NaN counts as the lowest score, so that such a precision is worse
            class_names=list(self._task.classes),
        )

    def _value(self, metrics: Metrics) -> float:
        """Of a split in which no class has both labels there is no AUC; the accuracy stands in."""
        return (
            metrics["accuracy"] if metrics["auc_macro"] is None or self.metric == "accuracy" else metrics["auc_macro"]
        )


def _check(max_drop: float, ranges: str, calibration_rows: int) -> None:
    if not 0 <= max_drop < 1:
        raise UserError("--max-drop", f"{max_drop:g}, expected 0 or more, less than 1", "0.005 is usual")
    if ranges not in RANGES:
        raise UserError("--ranges", f"{ranges!r}, expected one of {', '.join(RANGES)}", "take one of them")
    if calibration_rows < 1:
        raise UserError("--calibration-rows", f"{calibration_rows}, expected 1 or more", "300 is usual")

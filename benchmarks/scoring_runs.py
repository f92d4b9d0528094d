"""What scores: the job, Spark's own way with TensorFlow, and OpenVINO alone."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from job_runs import CORES, ROOT, finished, run, submitted
from xrays import BUILD, xrays

_TRAINING_ROWS = 64
_FILE_ROWS = 256
_WARM_UP_ROWS = 64
_FILES = 8
"""Of a batch, each of 256 rows."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """jobs/score_batch.py.

    Attributes:
        model: the topology.
        precision: int8 or bf16.
        tasks: at once, which share the cores evenly.
    """

    model: str
    precision: str
    tasks: int

    def __str__(self) -> str:
        return f"jobs/score_batch.py {self.model} {self.precision}, {self.tasks} x {CORES // self.tasks} cores"

    def images_per_second(self) -> float:
        """Of the second batch."""
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            output = Path(scratch) / "scores"
            model, data = quantised(self.model), files(2 * _FILES)
            finished(scoring(model, data, output, precision=self.precision, tasks=self.tasks))
            record = json.loads((output / "monitoring/batch=00000001/record.json").read_text())
        return record["images_per_second"]


@dataclass(frozen=True, kw_only=True)
class Udf:
    """`pyspark.ml.functions.predict_batch_udf` with Keras in fp32.

    Attributes:
        model: the topology.
        tasks: at once, which share the cores evenly.
        batch: images that are inferred together.
    """

    model: str
    tasks: int
    batch: int

    def __str__(self) -> str:
        return f"predict_batch_udf {self.model} fp32, {self.tasks} x {CORES // self.tasks} cores, {self.batch} images"

    def images_per_second(self) -> float:
        """Of a pass over two files, after one over two short ones."""
        own = [quantised(self.model), files(2, rows=_WARM_UP_ROWS), files(2), self.batch]
        return run(["benchmarks/udf_scores.py", *map(str, own)], tasks=self.tasks)["images_per_second"]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """OpenVINO on tensors in memory, with its own settings for throughput on all cores.

    Attributes:
        model: the topology.
        precision: int8 or bf16.
        batch: images that are inferred together.
    """

    model: str
    precision: str
    batch: int

    def __str__(self) -> str:
        return f"OpenVINO alone {self.model} {self.precision}, {self.batch} images"

    def images_per_second(self) -> float:
        program = [str(ROOT / "benchmarks/openvino_raw.py"), str(quantised(self.model) / self.precision / "model.xml")]
        done = subprocess.run(
            [sys.executable, *program, str(self.batch)], stdout=subprocess.PIPE, text=True, check=True
        )
        return float(done.stdout.splitlines()[-1])


def scoring(
    model: Path,
    data: Path,
    output: Path,
    *,
    precision: str = "int8",
    tasks: int = CORES,
    most: int = _FILES,
    where: str | None = None,
) -> "subprocess.Popen[str]":
    """The running job, which scores what is new in a folder, `most` files a batch, perhaps only some rows."""
    places = ["--model", str(model), "--data", str(data), "--output", str(output)]
    condition = ["--where", where] if where else []
    how = ["--precision", precision, "--files-per-batch", str(most), *condition]
    return submitted(["jobs/score_batch.py", *places, *how], tasks=tasks)


def files(number: int, *, rows: int = _FILE_ROWS) -> Path:
    """A folder of Parquet files of so many rows each: `id` and `image`."""
    directory = BUILD / f"to-score-{number}-{rows}"
    if not directory.exists():
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        table = pq.read_table(xrays(rows), columns=["image"], filters=[("split", "=", "train")])
        for place in range(number):
            ids = [f"{place}-{row}" for row in range(rows)]
            pq.write_table(table.append_column("id", [ids]), partial / f"{place}.parquet")
        partial.rename(directory)
    return directory


def quantised(model: str) -> Path:
    """A model directory with int8 and bf16, trained for two steps; made once under build/bench/."""
    directory = BUILD / f"quantised-{model}"
    if not directory.exists():
        data = xrays(_TRAINING_ROWS)
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            trained = f"{scratch}/model"
            settings = ["--set", f"model.name={model}", "--set", "training.workers=1"]
            recipe = ["--recipe", "benchmarks/xrays.yaml", *settings]
            run(["jobs/train_cnn.py", *recipe, "--data", str(data), "--output", trained])
            of = ["--model", trained, "--data", str(data), "--output", str(directory)]
            run(["jobs/quantize.py", *of, "--max-drop", "0.99", "--calibration-rows", "64"])
    return directory

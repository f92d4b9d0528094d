"""Small real runs: a network trained for seconds, with every file of its model directory that the report reads."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sklearn.datasets import load_digits
from tensorflow import keras

from insitu import artifact, models
from insitu.artifact import ImagePreprocessing, Signature, Tensor
from insitu.data.xray import CLASSES, xray
from insitu.metrics import evaluate
from insitu.tasks import TASKS

OPENMP = {"OMP_NUM_THREADS": "2", "KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
_RESUMED_SECONDS = 5 * 3600  # after the run began, see `provenance`


@dataclass(frozen=True)
class Rows:
    """Images uint8 [N, H, W, C] and labels of one task."""

    kind: Literal["multilabel", "multiclass"]
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[1], self.images.shape[2]

    @property
    def channels(self) -> int:
        return self.images.shape[3]


def digit_rows(count: int, *, size: int = 32) -> Rows:
    """The first of scikit-learn's digits, each pixel enlarged."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images[:count].reshape(-1, 8, 8) / 16 * 255).astype(np.uint8).repeat(size // 8, 1).repeat(size // 8, 2)
    return Rows("multiclass", pixels[..., None], labels[:count], tuple(map(str, range(10))))


def xray_rows(count: int, *, size: int = 64) -> Rows:
    """Synthetic chest X-rays with 14 findings."""
    drawn = [xray(index, size=size, seed=5) for index in range(count)]
    images, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    return Rows("multilabel", images[..., None], labels.astype(np.int64), CLASSES)


@dataclass(frozen=True)
class Trained:
    """A model directory before it is published, with what made it."""

    directory: Path
    model: keras.Model
    read_images: Callable[[Sequence[int]], list[np.ndarray]]


def train(directory: Path, rows: Rows, *, validation: int, epochs: int, name: str = "squeezenet") -> Trained:
    """Train on all but the last `validation` rows, and write what the training driver writes."""
    keras.utils.set_random_seed(7)
    task = TASKS[rows.kind]
    model = models.build(
        name, size=rows.size, channels=rows.channels, outputs=len(rows.class_names), activation=task.activation
    )
    model.compile(keras.optimizers.Adam(1e-3), task.loss(None))
    held = slice(len(rows.images) - validation, None)
    steps_per_epoch = -(-(len(rows.images) - validation) // 32)
    history = []
    for epoch in range(epochs):
        fitted = model.fit(rows.images[: held.start], rows.labels[: held.start], batch_size=32, verbose=0)
        scores = model.predict(rows.images[held], verbose=0)
        metrics = evaluate(kind=rows.kind, labels=rows.labels[held], scores=scores, class_names=list(rows.class_names))
        line = {"epoch": epoch, "step": (epoch + 1) * steps_per_epoch, "loss": fitted.history["loss"][0]}
        history.append(line | {"learning_rate": 1e-3, "images_per_second": 50.0 + epoch, "validation": metrics})
    directory.mkdir(parents=True)
    write_run(directory, rows, history, steps_per_epoch=steps_per_epoch, name=name)
    write_predictions(directory, rows.labels[held], scores)
    return Trained(directory, model, lambda wanted: [rows.images[held][i] for i in wanted])


def write_run(
    directory: Path, rows: Rows, history: list[dict[str, Any]], *, steps_per_epoch: int, name: str, workers: int = 2
) -> None:
    """The text files of a model directory."""
    epochs = len(history)
    recipe = {
        "task": {"kind": rows.kind, "classes": list(rows.class_names)},
        "data": {"size": list(rows.size), "channels": rows.channels},
        "model": {"name": name},
        "training": {"engine": "orca", "epochs": epochs, "global_batch": 32, "optimizer": {"name": "adam"}},
    }
    (directory / artifact.RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False))
    artifact.write_json(directory / artifact.SIGNATURE, signature(rows).to_json())
    artifact.write_json(directory / artifact.METRICS, history[-1]["validation"])
    artifact.write_json(directory / artifact.PROVENANCE, provenance(epochs, epochs * steps_per_epoch, workers))
    write_lines(directory / artifact.HISTORY, history)
    steps = [step_line(step) for step in range(1, epochs * steps_per_epoch + 1)]
    write_lines(directory / "steps.jsonl", [*steps[:-1], steps[-1] | {"seconds": _RESUMED_SECONDS + 5}])


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_predictions(directory: Path, labels: np.ndarray, scores: np.ndarray) -> None:
    """Predictions of rows that are stored in row groups of 20."""
    place = np.arange(len(labels))
    columns = {
        "path": ["file:///data/part-0.parquet"] * len(labels),
        "row_group": place // 20,
        "row": place % 20,
        "label": pa.array(labels.tolist()),
        "scores": pa.array(scores.tolist(), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), directory / "predictions.parquet")


def step_line(step: int) -> dict[str, Any]:
    speed = 48 + 4 * np.sin(step / 3)
    return {
        "step": step,
        "epoch": 0,
        "loss": 1 / step,
        "learning_rate": 1e-3,
        "images_per_second": speed,
        "seconds": step,
    }


def signature(rows: Rows) -> Signature:
    size, channels, classes = rows.size, rows.channels, len(rows.class_names)
    return Signature(
        task=rows.kind,
        inputs=(Tensor("image", "uint8", (None, *size, channels), "NHWC"),),
        outputs=(Tensor("scores", "float32", (None, classes), "NK"),),
        class_names=rows.class_names,
        preprocessing=ImagePreprocessing(size, channels),
    )


def provenance(epochs: int, steps: int, workers: int) -> dict[str, Any]:
    """Of a run that was started again once, and resumed with one worker in the morning."""
    restart = {"step": steps // 2, "reason": "rank 1 on node-1 ended with exit code -9", "seconds": steps / 2}
    return {
        "data": {
            "uri": "hdfs://namenode:8020/warehouse/radiology/xrays.parquet",
            "fingerprint": "9c1185a5c5e9fc54612808977ee8f548b2258d31a1b1f0b3c4ad7a1a2c1d2e3f",
            "rows": {"train": 900, "validation": 100, "quarantined": 1, "unused": 0},
        },
        "code": {"insitu": "0.1.0", "commit": "733a629c4f7e2f5bfb9a2d8c1c2b37d80d7ac0de"},
        "parent_model": None,
        "environment": {
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64-with-glibc2.36",
            "cpu_flags": ["avx2", "avx512f"],
            "cores": 2 * workers,
            "packages": {"tensorflow": "2.15.1", "pyspark": "3.5.9", "petastorm": None},
        },
        "seed": 17,
        "started": "2024-02-29T01:02:03Z",
        "run": {"workers": workers, "precision": "fp32", "epochs": epochs, "steps": steps, "seconds": 312.5},
        "drivers": [
            driver("2024-02-29T01:02:03Z", first_step=0, workers=workers, restarts=[restart]),
            driver("2024-02-29T06:02:03Z", first_step=steps - 1, workers=1, restarts=[]),
        ],
    }


def driver(started: str, *, first_step: int, workers: int, restarts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "started": started,
        "seconds": 156.25,
        "first_step": first_step,
        "workers": [
            {"rank": rank, "host": "node-1", "cores": [2 * rank, 2 * rank + 1], "threads": 2, "openmp": OPENMP}
            for rank in range(workers)
        ],
        "restarts": restarts,
    }

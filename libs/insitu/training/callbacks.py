"""Keras callbacks of a training worker: the learning rate, exact validation, and what a run leaves.

Every worker runs them at the same moments, so that their collective operations meet.
"""

import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from insitu.artifact import upload
from insitu.data.pipeline import validation_dataset
from insitu.recipe import PlateauDecay
from insitu.training.engines.base import RESULT, WEIGHTS, TrainingJob
from insitu.training.metrics import Metrics, evaluate
from insitu.training.progress import Reporter
from insitu.training.schedules import Plateau
from insitu.training.weights import save_weights
from insitu.training.worker import build_model, learning_rate


class RateSchedule(tf.keras.callbacks.Callback):
    """Sets the learning rate before every step; a plateau is judged by `val_loss`."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self._steps = job.train.steps
        self._rate = learning_rate(job.recipe, job.train.steps)
        self._epoch = job.first_epoch
        decay = job.recipe.training.schedule.decay
        self._plateau = (
            Plateau(decay.factor, decay.patience_epochs, decay.min_delta, "min")
            if isinstance(decay, PlateauDecay)
            else None
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        scale = self._plateau.multiplier if self._plateau else 1.0
        self.model.optimizer.learning_rate.assign(scale * self._rate.at(self._epoch * self._steps + batch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        if self._plateau:
            self._plateau.observe(logs["val_loss"])


class StepTimer(tf.keras.callbacks.Callback):
    """Times every step, and an epoch's steps without its validation."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self._global_batch = job.recipe.training.global_batch
        self._steps = job.train.steps
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs["images_per_second"] = self._global_batch * self._steps / sum(self.seconds[-self._steps :])

    def images_per_second(self) -> float:
        """Of the median step: tracing and the first epoch's warm-up do not count."""
        return self._global_batch / float(np.median(self.seconds))


class Validation(tf.keras.callbacks.Callback):
    """Scores the whole validation split after each epoch, every row once.

    Each worker scores its shard with a plain copy of the model, in a thread of its own because a
    thread starts outside the strategy's scope. The scores are gathered, so that every worker knows
    the exact metrics; `logs` gets them with `val_` before the name.
    """

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self._job = job
        self.metrics: dict[int, Metrics] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._scorer = self._thread.submit(self._build).result()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        labels, scores = self._thread.submit(self._score, self.model.get_weights(), _rank()).result()
        metrics = evaluate(
            kind=self._job.recipe.task.kind,
            labels=self._gather(labels),
            scores=self._gather(scores),
            class_names=list(self._job.class_names),
        )
        self.metrics[epoch] = metrics
        logs.update({f"val_{name}": value for name, value in metrics.items() if isinstance(value, float)})

    def _build(self) -> Any:
        self._copy = build_model(self._job.recipe, len(self._job.class_names))
        return tf.function(lambda images: self._copy(images, training=False), reduce_retracing=True)

    def _score(self, weights: list[np.ndarray], rank: int) -> tuple[np.ndarray, np.ndarray]:
        """This worker's labels [n, ...] and scores [n, K]."""
        self._copy.set_weights(weights)
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        dataset = validation_dataset(self._job.source, self._job.validation, rank=rank, threads=threads)
        found = [(labels.numpy(), self._scorer(images).numpy()) for images, labels in dataset]
        labels, scores = (np.concatenate(part) for part in zip(*found, strict=True))
        return labels, scores

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """All workers' rows; shards differ by one row at the most, so each is padded to the longest."""
        sizes = [sum(map(len, shard)) for shard in self._job.validation.shards]
        padded = np.concatenate([rows, np.zeros((max(sizes) - len(rows), *rows.shape[1:]), rows.dtype)])
        strategy = tf.distribute.get_strategy()
        local = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(padded))
        parts = np.split(strategy.gather(local, axis=0).numpy(), len(sizes))
        return np.concatenate([part[:size] for part, size in zip(parts, sizes, strict=True)])


class Record(tf.keras.callbacks.Callback):
    """Reports every epoch to the driver and leaves history, metrics and weights in the scratch directory."""

    def __init__(
        self,
        job: TrainingJob,
        reporter: Reporter,
        timer: StepTimer,
        validation: Validation,
        early_stopping: tf.keras.callbacks.EarlyStopping | None,
    ) -> None:
        super().__init__()
        self._job = job
        self._reporter = reporter
        self._timer = timer
        self._validation = validation
        self._early_stopping = early_stopping
        self._history: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        line = {name: logs[name] for name in ("loss", "learning_rate", "images_per_second")}
        entry = {"epoch": epoch, **line, "validation": self._validation.metrics[epoch]}
        self._history.append(entry)
        if _rank() == 0:
            self._reporter({"event": "epoch", **entry})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        kept = self._history[-1]["epoch"]
        if self._early_stopping:
            kept = self._early_stopping.best_epoch
            # Keras itself restores them only where it stops early.
            self.model.set_weights(self._early_stopping.best_weights)
        weights = self.model.get_weights()
        if _rank() != 0:
            return
        save_weights(weights, f"{self._job.scratch}/{WEIGHTS}")
        result = {
            "history": self._history,
            "metrics": self._validation.metrics[kept],
            "steps": len(self._timer.seconds),
            "images_per_second": self._timer.images_per_second(),
        }
        with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
            local = Path(scratch) / RESULT
            local.write_text(json.dumps(result))
            upload(local, f"{self._job.scratch}/{RESULT}")


def worker_callbacks(job: TrainingJob, reporter: Reporter) -> list[tf.keras.callbacks.Callback]:
    """The callbacks of a job, in the order in which they must run."""
    timer, validation = StepTimer(job), Validation(job)
    stop = job.recipe.training.early_stopping
    early_stopping = stop and tf.keras.callbacks.EarlyStopping(
        "val_loss", min_delta=stop.min_delta, patience=stop.patience_epochs, mode="min", restore_best_weights=True
    )
    record = Record(job, reporter, timer, validation, early_stopping)
    return [timer, validation, RateSchedule(job), *([early_stopping] if early_stopping else []), record]


def _rank() -> int:
    return int(json.loads(os.environ["TF_CONFIG"])["task"]["index"])

"""Exact validation within the gang: every row once, by all workers together."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from insitu.metrics import Metrics, evaluate
from insitu.training.collectives import all_gather
from insitu.training.engines.base import TrainingJob
from insitu.training.progress import Reporter

_REPORT_SECONDS = 1.0


class Validation(tf.keras.callbacks.Callback):
    """Scores the whole validation split after each epoch, every row once.

    Each worker scores its shard with a plain copy of the model, in a thread of its own because a
    thread starts outside the strategy's scope. The scores are gathered, so that every worker knows
    the exact metrics; `logs` gets them with `val_` before the name.

    Attributes:
        metrics: of the latest scoring.
        labels, scores: of all rows, in the order of the plan's shards.
        weights: that gave them.
    """

    def __init__(self, job: TrainingJob, rank: int, reporter: Reporter) -> None:
        super().__init__()
        self._job = job
        self._rank = rank
        self._reporter = reporter
        self.weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._scorer: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self.score(self.model.get_weights(), epoch)
        logs.update({f"val_{name}": value for name, value in self.metrics.items() if isinstance(value, float)})

    def score(self, weights: list[np.ndarray], epoch: int) -> None:
        """Score the split with weights of the end of `epoch`; every worker takes part."""
        labels, scores = self._thread.submit(self._score, weights, epoch).result()
        self.labels, self.scores, self.weights = self._gather(labels), self._gather(scores), weights
        self.metrics: Metrics = evaluate(
            kind=self._job.recipe.task.kind,
            labels=self.labels,
            scores=self.scores,
            class_names=list(self._job.class_names),
        )

    def _build(self) -> Any:
        """When first needed: a run's first step does not wait for it.

        `build_model` would seed TensorFlow's generators, which makes TensorFlow forget its kernels: the next step would
        optimise the whole graph again.
        """
        self._copy = tf.keras.models.clone_model(self.model)
        return tf.function(lambda images: self._copy(images, training=False), reduce_retracing=True)

    def _score(self, weights: list[np.ndarray], epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """This worker's labels [n, ...] and scores [n, K]."""
        self._scorer = self._scorer or self._build()
        self._copy.set_weights(weights)
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        dataset = self._job.source.validation_dataset(self._job.validation, rank=self._rank, threads=threads)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        reported, done = time.monotonic(), 0
        for images, labels in dataset:
            found.append((labels.numpy(), self._scorer(images).numpy()))
            done += len(found[-1][0])
            self._reporter.advance()
            if self._rank == 0 and time.monotonic() - reported >= _REPORT_SECONDS:
                reported = time.monotonic()
                rows = sum(map(len, self._job.validation.shards[0]))
                self._reporter({"event": "validation", "epoch": epoch, "rows": done, "of": rows})
        labels, scores = (np.concatenate(part) for part in zip(*found, strict=True))
        return labels, scores

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """All workers' rows; shards differ by one row at the most, so each is padded to the longest."""
        sizes = [sum(map(len, shard)) for shard in self._job.validation.shards]
        padded = np.concatenate([rows, np.zeros((max(sizes) - len(rows), *rows.shape[1:]), rows.dtype)])
        parts = np.split(all_gather(padded), len(sizes))
        return np.concatenate([part[:size] for part, size in zip(parts, sizes, strict=True)])

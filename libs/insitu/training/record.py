"""What a gang leaves: the history while it runs, and weights, metrics and predictions at its end."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from insitu.artifact import upload
from insitu.cluster.filesystem import in_scratch
from insitu.training.callbacks import EarlyStopping, StepTimer
from insitu.training.engines.base import PREDICTIONS, RESULT, WEIGHTS, TrainingJob
from insitu.training.progress import Reporter
from insitu.training.rundir import persist_result
from insitu.training.validation import Validation
from insitu.training.weights import save_weights


class Record(tf.keras.callbacks.Callback):
    """Reports every epoch to the driver and leaves history, metrics and weights in the scratch directory."""

    name = "record"

    def __init__(
        self,
        job: TrainingJob,
        rank: int,
        reporter: Reporter,
        timer: StepTimer,
        validation: Validation,
        early_stopping: EarlyStopping | None,
    ) -> None:
        super().__init__()
        self._job = job
        self._rank = rank
        self._reporter = reporter
        self._timer = timer
        self._validation = validation
        self._early_stopping = early_stopping
        self._history: list[dict[str, Any]] = list(job.history)
        self._earlier_loss, self._earlier_steps = 0.0, 0

    def state(self) -> dict[str, Any]:
        """The epochs so far, and the losses of the epoch that is not complete."""
        return {"history": self._history, "loss": self._loss_sum(), "steps": self._earlier_steps + self._epoch_steps}

    def restore(self, state: dict[str, Any]) -> None:
        self._history, self._earlier_loss, self._earlier_steps = state["history"], state["loss"], state["steps"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_steps, self._mean_loss = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self._epoch_steps += 1
        self._mean_loss = float(logs["loss"]) / self._job.train.workers  # Keras adds up the workers' means there

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        entry = {
            "epoch": epoch,
            "step": (epoch + 1) * self._job.train.steps,
            "loss": self.epoch_loss,
            **{name: logs[name] for name in ("learning_rate", "images_per_second")},
            "validation": self._validation.metrics,
        }
        self._history.append(entry)
        self._earlier_loss, self._earlier_steps, self._epoch_steps = 0.0, 0, 0
        if self._rank == 0:
            self._reporter({"event": "epoch", **entry})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        kept = self._history[-1]
        if self._early_stopping:
            kept = next(line for line in self._history if line["epoch"] == self._early_stopping.best_epoch)
            # Keras itself restores them only where it stops early.
            self.model.set_weights(self._early_stopping.best_weights)
        weights = self.model.get_weights()
        scored = self._validation.weights
        if scored is None or not all(map(np.array_equal, scored, weights)):
            self._validation.score(weights, kept["epoch"])
        if self._rank == 0:
            leave = partial(self._leave, weights, kept)
            persist_result(leave, "leaving the result", self._job.scratch, tell=self._tell_of_wait)

    def _tell_of_wait(self, reason: str) -> None:
        """To wait is no silence, and the driver's log is the one that is read."""
        self._reporter.advance()
        self._reporter({"event": "waiting", "reason": reason})

    @property
    def epoch_loss(self) -> float:
        """The mean over the epoch's steps so far, those before a resume too."""
        return self._loss_sum() / (self._earlier_steps + self._epoch_steps)

    def _loss_sum(self) -> float:
        return self._earlier_loss + self._mean_loss * self._epoch_steps

    def _leave(self, weights: list[np.ndarray], kept: dict[str, Any]) -> None:
        save_weights(weights, f"{self._job.scratch}/{WEIGHTS}")
        result = {
            "history": self._history,
            "metrics": kept["validation"],
            "steps": self._history[-1]["step"],
            "images_per_second": self._timer.images_per_second(),
        }
        with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
            local = Path(scratch)
            with in_scratch(local):
                np.savez(local / PREDICTIONS, labels=self._validation.labels, scores=self._validation.scores)
                (local / RESULT).write_text(json.dumps(result))
            upload(local / PREDICTIONS, f"{self._job.scratch}/{PREDICTIONS}")
            upload(local / RESULT, f"{self._job.scratch}/{RESULT}")

"""The gang's pulse: about once a second the workers agree on what to do next, and rank 0 reports."""

import math
import time
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from insitu.cluster.child import Finished
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS
from insitu.errors import UserError
from insitu.training.checkpoints import Checkpoint, CheckpointStore
from insitu.training.collectives import all_gather
from insitu.training.engines.base import TrainingJob
from insitu.training.progress import Reporter
from insitu.training.record import Record

_PULSE_SECONDS = 1.0


class Stateful(Protocol):
    """A callback whose state is in every checkpoint, as JSON."""

    @property
    def name(self) -> str: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class Pulse(tf.keras.callbacks.Callback):
    """Writes checkpoints, tells the driver of the steps, and ends the worker: on request or after all callbacks.

    A checkpoint belongs to a step after which no worker has begun the next; at an epoch's last step it
    is written once the callbacks before this one are done with the epoch. None is written of a loss that is
    not finite, which is said once.

    Args:
        job: what is trained.
        rank: this worker's.
        record: has the epoch's loss.
        reporter: its line to the driver.
        stateful: the callbacks whose state is kept.
        early_stopping: whose best weights are kept too.
    """

    def __init__(
        self,
        job: TrainingJob,
        rank: int,
        record: Record,
        reporter: Reporter,
        stateful: list[Stateful],
        early_stopping: tf.keras.callbacks.EarlyStopping | None,
    ) -> None:
        super().__init__()
        self._job = job
        self._rank = rank
        self._record = record
        self._reporter = reporter
        self._stateful = stateful
        self._early_stopping = early_stopping
        self._settings = job.recipe.training.checkpoint
        self._store = CheckpointStore(job.checkpoints, keep=self._settings.keep)
        self._step = self._pulse_step = job.first_step
        self._next_pulse = job.first_step + 1
        self._save_due = self._stopping = self._told_of_loss = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._pulse_time = self._save_time = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == 0:
            self._pulse_time, self._pulse_step = time.monotonic(), self._step  # validation's time is no step's

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step = self._epoch * self._job.train.steps + batch + 1
        self._loss = self._record.epoch_loss
        self._reporter.advance()
        if self._step >= self._next_pulse:
            self._beat()
        every = self._settings.every_steps
        self._save_due |= every is not None and self._step % every == 0
        if batch + 1 < self._job.train.steps:
            self._act()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 == self._job.last_epoch or self.model.stop_training:
            self._save_due = True  # a model that cannot be published then costs no training
        self._act()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        raise Finished

    def _beat(self) -> None:
        now = time.monotonic()
        step_seconds = (now - self._pulse_time) / (self._step - self._pulse_step)
        said = all_gather(np.array([[self._reporter.stop_requested(), now - self._save_time, step_seconds]]))
        self._stopping = bool(said[:, 0].any())
        _, unsaved_seconds, common_step_seconds = said[0]
        self._save_due |= self._stopping or unsaved_seconds >= self._settings.every_minutes * 60
        self._next_pulse = self._step + max(1, round(_PULSE_SECONDS / common_step_seconds))
        self._pulse_time, self._pulse_step = now, self._step
        if self._rank == 0:
            rate = float(self.model.optimizer.learning_rate.numpy())
            speed = self._job.recipe.training.global_batch / step_seconds
            event = {
                "step": self._step,
                "epoch": self._epoch,
                "loss": self._loss,
                "learning_rate": rate,
            }
            self._reporter({"event": "step", **event, "images_per_second": speed})

    def _act(self) -> None:
        if self._save_due and math.isfinite(self._loss):
            self._save()
        elif self._save_due and not self._told_of_loss:
            self._told_of_loss = True
            self._report(0.0, f"the loss is {self._loss}; none is written until it is finite")
        if self._stopping:
            raise Finished

    def _save(self) -> None:
        """Every worker takes part: reading a distributed variable is a collective operation."""
        started = time.monotonic()
        if self._rank == 0:
            self._reporter({"event": "saving"})
        checkpoint = Checkpoint(
            step=self._step,
            weights=self.model.get_weights(),
            optimizer=[variable.numpy() for variable in self.model.optimizer.variables],
            best_weights=(self._early_stopping and self._early_stopping.best_weights) or [],
            state={callback.name: callback.state() for callback in self._stateful},
        )
        self._save_due, self._save_time, self._told_of_loss = False, time.monotonic(), False
        error = self._write(checkpoint) if self._rank == 0 else None
        self._report(time.monotonic() - started, error)

    def _report(self, seconds: float, error: str | None) -> None:
        if self._rank == 0:
            self._reporter({"event": "checkpoint", "step": self._step, "seconds": seconds, "error": error})

    def _write(self, checkpoint: Checkpoint) -> str | None:
        """Returns why it could not be written: training goes on, and the next one may succeed."""
        try:
            self._store.save(checkpoint)
        except (UserError, *FILE_SYSTEM_ERRORS) as error:  # UserError: one that a gang that was given up has written
            return str(error)
        return None

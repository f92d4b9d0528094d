"""Keras callbacks of a training worker that are about single steps and epochs: rate, dropout, timing, stopping.

Every worker runs them at the same moments, so that their collective operations meet.
"""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow as tf

from insitu.recipe import PlateauDecay
from insitu.training.checkpoints import Checkpoint
from insitu.training.engines.base import TrainingJob
from insitu.training.schedules import Plateau
from insitu.training.worker import learning_rate


class RateSchedule(tf.keras.callbacks.Callback):
    """Sets the learning rate before every step; a plateau is judged by `val_loss`."""

    name = "rate_schedule"

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

    def state(self) -> dict[str, Any]:
        return asdict(self._plateau) if self._plateau else {}

    def restore(self, state: dict[str, Any]) -> None:
        if state:
            self._plateau = Plateau(**state)


class DropoutSeeds(tf.keras.callbacks.Callback):
    """Every dropout mask is a pure function of seed, step, layer and worker: a resumed run draws the same."""

    def __init__(self, job: TrainingJob, rank: int) -> None:
        super().__init__()
        self._seeds = (job.recipe.training.seed, rank)
        self._steps = job.train.steps

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        layers = [layer for layer in self.model.layers if isinstance(layer, tf.keras.layers.Dropout)]
        self._generators = [layer._random_generator._generator for layer in layers]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        for place, generator in enumerate(self._generators):
            entropy = [*self._seeds, self._epoch * self._steps + batch, place]
            generator.reset_from_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


class StepTimer(tf.keras.callbacks.Callback):
    """Times every step from its beginning to the next one's, and an epoch's steps (those since a resume) together.

    What happens between two steps counts, as checkpoints do; an epoch's validation does not. It must be the first
    callback.
    """

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self._global_batch = job.recipe.training.global_batch
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._first = len(self.seconds)
        self._start: float | None = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._end_step()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self._end_step()
        done = self.seconds[self._first :]
        logs["images_per_second"] = self._global_batch * len(done) / sum(done)

    def _end_step(self) -> None:
        now = time.perf_counter()
        if self._start is not None:
            self.seconds.append(now - self._start)
        self._start = now

    def images_per_second(self) -> float | None:
        """Of the median step: tracing and the first epoch's warm-up do not count. None where no step was left to do."""
        return self._global_batch / float(np.median(self.seconds)) if self.seconds else None


class EarlyStopping(tf.keras.callbacks.EarlyStopping):
    """Keras's, on `val_loss`, with a state that goes on after a resume."""

    name = "early_stopping"

    def __init__(self, *, patience_epochs: int, min_delta: float, restored: Checkpoint | None) -> None:
        super().__init__(
            "val_loss", min_delta=min_delta, patience=patience_epochs, mode="min", restore_best_weights=True
        )
        self._restored = restored

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if self._restored and self._restored.best_weights:
            self.best_weights = self._restored.best_weights

    def state(self) -> dict[str, Any]:
        return {
            "wait": self.wait,
            "best": float(self.best),
            "best_epoch": self.best_epoch,
            "stopped": self.stopped_epoch > 0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]


class Restore(tf.keras.callbacks.Callback):
    """Gives the callbacks their state of a checkpoint, after their own beginning."""

    def __init__(self, checkpoint: Checkpoint, stateful: list[Any]) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._stateful = stateful

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for callback in self._stateful:
            callback.restore(self._checkpoint.state[callback.name])

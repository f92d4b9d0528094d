"""The epochs of a BigDL run, on the driver: rate, validation, early stopping, checkpoints, and what is reported."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from insitu.artifact import upload
from insitu.bigdl.converted import Converted
from insitu.bigdl.trainer import Trainer
from insitu.bigdl.vectors import read_vector, write_start
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, in_scratch, open_filesystem
from insitu.cluster.interrupts import LONGEST_STOP_SECONDS, DeferredInterrupts
from insitu.errors import UserError, WorkerError
from insitu.metrics import Metrics, evaluate
from insitu.recipe import PlateauDecay
from insitu.training.callbacks import EarlyStopping
from insitu.training.checkpoints import Checkpoint, CheckpointStore
from insitu.training.engines.base import PREDICTIONS, WEIGHTS, Listener, TrainingJob, TrainingResult
from insitu.training.rundir import persist_result
from insitu.training.schedules import Plateau
from insitu.training.weights import write_weights
from insitu.training.worker import learning_rate

T = TypeVar("T")
_REPORT_SECONDS = 1.0


class BigdlRun:
    """One job from its first step to its last.

    Args:
        job, listener: as for `Engine.train`.
        trainer: the workers, at `job.first_step`.
        converted: the topology that they train.
        restored: the checkpoint that is gone on from.
        interrupts: delivered between two steps, after a checkpoint.
    """

    def __init__(
        self,
        job: TrainingJob,
        trainer: Trainer,
        converted: Converted,
        listener: Listener,
        restored: Checkpoint | None,
        interrupts: DeferredInterrupts,
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._converted = converted
        self._listener = listener
        self._interrupts = interrupts
        self._settings = job.recipe.training.checkpoint
        self._store = CheckpointStore(job.checkpoints, keep=self._settings.keep)
        self._rate = learning_rate(job.recipe, job.train.steps)
        self._workers = job.train.workers
        self._step = job.first_step
        state = restored.state if restored else {}
        decay = job.recipe.training.schedule.decay
        self._plateau = None
        if isinstance(decay, PlateauDecay):
            fresh = Plateau(decay.factor, decay.patience_epochs, decay.min_delta, "min")
            self._plateau = Plateau(**state["rate_schedule"]) if state else fresh
        self._early_stopping = self._started_early_stopping(restored)
        record = state.get("record", {"history": list(job.history), "loss": 0.0, "steps": 0})
        self._history: list[dict[str, Any]] = record["history"]
        self._epoch_loss, self._epoch_steps = record["loss"], record["steps"]
        self._step_seconds: list[float] = []
        self._reported = 0
        self._stopped = bool(restored and restored.stopped)
        self._told_of_loss = False

    def train(self) -> TrainingResult:
        """Every epoch of the job; what `Engine.train` says of results and exceptions holds here."""
        self._saved_at = self._reported_at = time.monotonic()
        for epoch in range(self._step // self._job.train.steps, self._job.last_epoch):
            if self._stopped:
                break
            self._train_epoch(epoch)
        return self._leave()

    def _train_epoch(self, epoch: int) -> None:
        steps, timed = self._job.train.steps, len(self._step_seconds)
        begun = time.perf_counter()
        for step in range(self._step % steps, steps):
            self._train_step(epoch, step)
            ended = time.perf_counter()
            self._step_seconds.append(ended - begun)
            begun = ended
            self._report_step(epoch)
        done = self._step_seconds[timed:]
        self._validate(epoch)
        entry = {
            "epoch": epoch,
            "step": (epoch + 1) * steps,
            "loss": self._epoch_loss / steps,
            "learning_rate": self._current_rate,
            "images_per_second": self._speed(done),
            "validation": self._metrics,
        }
        self._history.append(entry)
        self._epoch_loss, self._epoch_steps = 0.0, 0
        self._listener({"event": "epoch", **entry})
        if self._plateau:
            self._plateau.observe(self._metrics["loss"])
        if self._early_stopping:
            self._early_stopping.on_epoch_end(epoch, {"val_loss": self._metrics["loss"]})
            self._stopped = self._early_stopping.model.stop_training
        self._save_if_due(due=epoch + 1 == self._job.last_epoch or self._stopped)

    def _train_step(self, epoch: int, step: int) -> None:
        scale = self._plateau.multiplier if self._plateau else 1.0
        self._current_rate = scale * self._rate.at(self._step)
        self._epoch_loss += self._trainer.step(self._step, self._current_rate)
        self._step += 1
        self._epoch_steps += 1
        if step + 1 < self._job.train.steps:
            self._save_if_due()

    def _report_step(self, epoch: int) -> None:
        if self._step > self._job.first_step + 1 and time.monotonic() - self._reported_at < _REPORT_SECONDS:
            return
        since = self._step_seconds[self._reported :]
        self._reported_at, self._reported = time.monotonic(), len(self._step_seconds)
        self._listener(
            {
                "event": "step",
                "step": self._step,
                "epoch": epoch,
                "loss": self._epoch_loss / self._epoch_steps,
                "learning_rate": self._current_rate,
                "images_per_second": self._speed(since),
            }
        )

    def _speed(self, step_seconds: list[float]) -> float:
        """Images a second of some steps, with what happened between them."""
        return self._job.recipe.training.global_batch * len(step_seconds) / sum(step_seconds)

    def _validate(self, epoch: int) -> None:
        rows, source = self._job.validation.rows, self._job.source
        with TemporaryDirectory(prefix="insitu-") as scratch:
            for done in self._trainer.validate(scratch):
                self._listener({"event": "validation", "epoch": epoch, "rows": done, "of": rows})
                self._interrupts.deliver(after_seconds=LONGEST_STOP_SECONDS)
            self._scores, labels = (
                np.concatenate([np.fromfile(f"{scratch}/{name}-{rank}", "<f4") for rank in range(self._workers)])
                for name in ("scores", "labels")
            )
        self._scores = self._scores.reshape(rows, -1)
        self._labels = labels.astype(source.label_dtype).reshape(rows, *source.label_shape)
        self._metrics: Metrics = evaluate(
            kind=self._job.recipe.task.kind,
            labels=self._labels,
            scores=self._scores,
            class_names=list(self._job.class_names),
        )

    def _save_if_due(self, *, due: bool = False) -> None:
        every = self._settings.every_steps
        due |= every is not None and self._step % every == 0
        due |= time.monotonic() - self._saved_at >= self._settings.every_minutes * 60
        due = due or self._interrupts.waiting
        if due and math.isfinite(self._epoch_loss):
            self._save()
        elif due and not self._told_of_loss:
            self._told_of_loss = True
            self._report(0.0, f"the loss is {self._epoch_loss}; none is written until it is finite")
        self._interrupts.deliver()

    def _save(self) -> None:
        """Training goes on where it cannot be written, and the next one may succeed."""
        started = time.monotonic()
        error = None
        try:
            self._store.save(self._checkpoint())
        except WorkerError:
            raise
        except (UserError, *FILE_SYSTEM_ERRORS) as failure:  # a file system that hid the one that is there already
            error = str(failure)
        self._saved_at, self._told_of_loss = time.monotonic(), False
        self._report(self._saved_at - started, error)

    def _report(self, seconds: float, error: str | None) -> None:
        self._listener({"event": "checkpoint", "step": self._step, "seconds": seconds, "error": error})

    def _checkpoint(self) -> Checkpoint:
        weights, slots = self._state()
        early = self._early_stopping
        state: dict[str, Any] = {
            "rate_schedule": vars(self._plateau) if self._plateau else {},
            "record": {"history": self._history, "loss": self._epoch_loss, "steps": self._epoch_steps},
        }
        if early:
            state["early_stopping"] = early.state()
        best = (early and early.best_weights) or []
        return Checkpoint(self._step, weights, optimizer=slots, best_weights=best, state=state)

    def _state(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The weights as Keras has them, and the optimiser's vectors, flat in the network's order."""
        scratch = self._directory("state")
        slots = self._trainer.save(scratch)

        def whole(name: str) -> np.ndarray:
            return np.concatenate([read_vector(f"{scratch}/{name}-{rank}") for rank in range(self._workers)])

        weights = self._converted.from_flat(whole("parameters"), read_vector(f"{scratch}/statistics"))
        return weights, [whole(f"slot{i}") for i in range(slots)]

    def _leave(self) -> TrainingResult:
        """Leave weights, and the scores that these weights give."""
        kept, weights = self._history[-1], self._persist(self._state, "reading the weights")[0]
        if self._early_stopping:
            kept = next(line for line in self._history if line["epoch"] == self._early_stopping.best_epoch)
            weights = self._early_stopping.best_weights
            self._load(weights)
        self._validate(kept["epoch"])
        return TrainingResult(
            weights=self._write(WEIGHTS, lambda path: write_weights(weights, path)),
            predictions=self._write(PREDICTIONS, lambda path: np.savez(path, labels=self._labels, scores=self._scores)),
            history=self._history,
            metrics=dict(self._metrics),
            steps=self._history[-1]["step"],
            images_per_second=self._images_per_second(),
        )

    def _load(self, weights: list[np.ndarray]) -> None:
        scratch = self._persist(lambda: self._directory("best"), "making a directory")
        self._persist(lambda: write_start(self._converted, weights, scratch), "writing the weights")
        self._persist(lambda: self._trainer.load(scratch), "loading the weights")

    def _images_per_second(self) -> float | None:
        seconds = self._step_seconds
        return self._job.recipe.training.global_batch / float(np.median(seconds)) if seconds else None

    def _started_early_stopping(self, restored: Checkpoint | None) -> EarlyStopping | None:
        settings = self._job.recipe.training.early_stopping
        if settings is None:
            return None
        callback = EarlyStopping(**settings.model_dump(), restored=restored)
        callback.set_model(_Weights(lambda: self._persist(self._state, "reading the weights")[0]))
        callback.on_train_begin()
        if restored:
            callback.restore(restored.state[callback.name])
        return callback

    def _persist(self, action: Callable[[], T], what: str) -> T:
        return persist_result(action, what, self._job.scratch)

    def _directory(self, name: str) -> str:
        uri = f"{self._job.scratch}/{name}"
        file_system, path = open_filesystem(uri)
        file_system.makedirs(path, exist_ok=True)
        return uri

    def _write(self, name: str, write: Callable[[Path], None]) -> str:
        uri = f"{self._job.scratch}/{name}"

        def leave() -> None:
            with TemporaryDirectory(prefix="insitu-") as scratch:
                with in_scratch(scratch):
                    write(Path(scratch) / name)
                upload(Path(scratch) / name, uri)

        self._persist(leave, f"leaving {name}")
        return uri


class _Weights:
    """What Keras's early stopping wants of a model."""

    def __init__(self, get_weights: Callable[[], list[np.ndarray]]) -> None:
        self.get_weights = get_weights
        self.stop_training = False

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """The run loads the best weights itself at its end."""

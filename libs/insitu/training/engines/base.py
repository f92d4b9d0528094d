"""The engine protocol: what trains, given plain and picklable parts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from insitu.data.opened import Opened
from insitu.data.pipeline import Source
from insitu.data.plan import ShardPlan
from insitu.errors import UserError
from insitu.recipe import Recipe

WEIGHTS = "weights.npz"
RESULT = "result.json"

PREDICTIONS = "predictions.npz"

Precision = Literal["bf16", "fp32"]
Event = dict[str, Any]
Listener = Callable[[Event], None]
"""Called on the driver, one call at a time, with what happens while a run goes on; `event["event"]` says what:

start: a gang starts: `epochs`, `steps_per_epoch`, `global_batch`, and the `first_step` it goes on from;
worker: `rank`, `host` and compute `threads` of a worker that has loaded its model, and the `cores` that it may run on;
    the workers of a BigDL executor share its cores; `openmp`, the settings of its environment by name: BigDL has none;
step: about once a second: `step` (done in the whole run), `epoch`, mean `loss` of the epoch so far,
    `learning_rate`, `images_per_second` since the last one, and `seconds` since the run began, also
    where that was another driver, before `--resume`;
validation: `epoch`, and the `rows` of `of` that rank 0 has scored;
epoch: a line of the history, as in `TrainingResult.history`;
checkpoint: of `step`, took `seconds`; `error` says why it could not be written, once where it is the loss;
waiting: the training is done, and rank 0 waits for the output's file system, for `reason`;
restart: the gang died for `reason` and is started again from `step`, attempt `attempt` of `of`, `seconds` after
    the run began.
"""


@dataclass(frozen=True)
class Layout:
    """How the workers sit on the cluster: how many in all, on an executor, and threads of each."""

    workers: int
    workers_per_executor: int
    threads: int

    @classmethod
    def on(cls, cores: list[int], workers: int | None) -> "Layout":
        """How `training.workers` sit on executors of so many cores each; None is one an executor.

        Raises:
            UserError: more workers than cores, or not the same number on each executor.
        """
        workers = workers or len(cores)
        per_executor, uneven = divmod(workers, len(cores))
        if uneven or per_executor > min(cores):
            raise UserError(
                "training.workers",
                f"{workers} workers do not fit {len(cores)} executors of {min(cores)} cores",
                f"set a multiple of {len(cores)} that is at most {len(cores) * min(cores)}",
            )
        return cls(workers, per_executor, min(cores) // per_executor)

    @property
    def executors(self) -> int:
        """That the workers are shared out to."""
        return self.workers // self.workers_per_executor

    def with_threads(self, threads: int | None) -> "Layout":
        """The same with `training.threads` of each worker; None leaves it all its cores."""
        if threads is None:
            return self
        if threads > self.threads:
            problem = f"{threads} threads, and a worker has {self.threads} cores"
            raise UserError("training.threads", problem, f"set {self.threads} at most, or fewer training.workers")
        return replace(self, threads=threads)


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker needs.

    Attributes:
        recipe: resolved: precision is fp32 or bf16, workers is set.
        class_names: K names.
        source: the rows' columns and what they become.
        train, validation: shard plans with one shard a worker.
        class_weights: for the task's loss.
        initial_weights: URI of an `.npz` that the first epoch starts from; None for the recipe's random ones.
        scratch: URI of an empty directory that driver and workers both reach.
        checkpoints: URI of the run's checkpoints.
        first_epoch, last_epoch: the epochs of the phase, last one excluded.
        train_trunk: whether the trunk learns or only the head.
        history: the epochs before `first_epoch`.
        resume_step: a step within the phase whose checkpoint is gone on from; None starts at `first_epoch`.
    """

    recipe: Recipe
    class_names: tuple[str, ...]
    source: Source
    train: ShardPlan
    validation: ShardPlan
    class_weights: np.ndarray | None
    initial_weights: str | None
    scratch: str
    checkpoints: str
    first_epoch: int
    last_epoch: int
    train_trunk: bool
    history: tuple[dict[str, Any], ...] = ()
    resume_step: int | None = None

    @property
    def first_step(self) -> int:
        """Optimiser steps of the whole run that are done when the job starts."""
        return self.first_epoch * self.train.steps if self.resume_step is None else self.resume_step


@dataclass(frozen=True)
class TrainingResult:
    """What a job leaves behind.

    Attributes:
        weights: URI of an `.npz` with the final weights, in `scratch`.
        predictions: URI of an `.npz` with the validation split's `labels` [N, ...] and `scores` [N, K] of
            these weights, in the order of the plan's shards.
        history: an entry an epoch of the whole run: `epoch`, its last `step`, `loss`, `learning_rate`,
            `images_per_second` and under `validation` the metrics as `insitu.metrics.evaluate` names them.
        metrics: the validation metrics of `weights`.
        steps: optimiser steps of the whole run.
        images_per_second: over all workers, from the median step; None where no step was left to do.
    """

    weights: str
    predictions: str
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
    steps: int
    images_per_second: float | None


class Engine(Protocol):
    """Trains a Keras topology on the cluster; it makes the same model whatever the engine."""

    def settle(self, recipe: Recipe, layout: Layout, opened: Opened, *, begun: Precision | None) -> Recipe:
        """The recipe with the precision and the engine's own choices filled in; called before a row is read.

        Args:
            recipe: the user's.
            layout: of its workers.
            opened: what it trains on.
            begun: the precision of the run that is gone on with, whatever today's executors do faster.

        Raises:
            UserError: what it asks for cannot be had on these executors.
        """
        ...

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        """Run the job's epochs, writing checkpoints on the way.

        On KeyboardInterrupt or SystemExit a checkpoint is written before the exception goes on.

        Raises:
            UserError: training diverged, or the workers do not share the scratch directory.
            WorkerError: a worker's code failed.
            WorkerLost: a worker died or stopped answering; the job can be run again from a checkpoint.
        """
        ...

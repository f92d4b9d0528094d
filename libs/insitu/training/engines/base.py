"""The engine protocol: what trains, given plain and picklable parts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from insitu.data.pipeline import Source
from insitu.data.plan import ShardPlan
from insitu.recipe import Recipe

WEIGHTS = "weights.npz"
RESULT = "result.json"

Event = dict[str, Any]
Listener = Callable[[Event], None]
"""Called on the driver with what the workers report while they run; `event["event"]` says which:

worker: `rank`, `host`, `cores` and OpenMP `threads` of a worker that has loaded its model;
epoch: a line of the history, as in `TrainingResult.history`.
"""


class WorkerFailure(RuntimeError):
    """A worker failed; its own exception is the cause."""

    def __init__(self, rank: int, host: str) -> None:
        super().__init__(f"rank {rank} on {host}")


@dataclass(frozen=True)
class Layout:
    """How the workers sit on the cluster: how many in all, on an executor, and threads of each."""

    workers: int
    workers_per_executor: int
    threads: int


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker needs.

    Attributes:
        recipe: resolved: precision is fp32 or bf16, workers is set.
        class_names: K names.
        source: the rows' columns and what they become.
        train, validation: shard plans with one shard a worker.
        class_weights: for the task's loss.
        initial_weights: URI of an `.npz` that the first step starts from.
        scratch: URI of a directory that driver and workers both reach.
        first_epoch, last_epoch: the epochs to run, last one excluded.
        train_trunk: whether the trunk learns or only the head.
    """

    recipe: Recipe
    class_names: tuple[str, ...]
    source: Source
    train: ShardPlan
    validation: ShardPlan
    class_weights: np.ndarray | None
    initial_weights: str
    scratch: str
    first_epoch: int
    last_epoch: int
    train_trunk: bool


@dataclass(frozen=True)
class TrainingResult:
    """What a job leaves behind.

    Attributes:
        weights: URI of an `.npz` with the final weights, in `scratch`.
        history: an entry an epoch: `epoch`, `loss`, `learning_rate`, `images_per_second` and the
            validation metrics as `insitu.training.metrics.evaluate` names them, under `validation`.
        metrics: the validation metrics of `weights`.
        steps: optimiser steps that were run.
        images_per_second: over all workers, from the median step.
    """

    weights: str
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
    steps: int
    images_per_second: float


class Engine(Protocol):
    """Trains a Keras topology on the cluster; it makes the same model whatever the engine."""

    def layout(self, workers: int | None) -> Layout:
        """How `training.workers` sit on this cluster; None is one an executor.

        Raises:
            UserError: more workers than cores, or not the same number on each executor.
        """
        ...

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        """Run the job's epochs.

        Raises:
            UserError: training diverged, or the workers do not share the scratch directory.
        """
        ...

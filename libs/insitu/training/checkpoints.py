"""Checkpoints: a run's whole state after a step, as checksummed directories on any file system."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError
from insitu.training.weights import read_weights, write_weights

_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` optimiser steps.

    Attributes:
        step: steps done in the whole run.
        weights: as `keras.Model.get_weights`.
        optimizer: its variables, in their order.
        best_weights: early stopping's; empty where there are none.
        state: what the callbacks keep, by callback; JSON.
    """

    step: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best_weights: list[np.ndarray] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended the training here."""
        return bool(self.state.get("early_stopping", {}).get("stopped"))


def load_checkpoint(directory: str, step: int) -> Checkpoint:
    """Read the checkpoint of a step.

    Raises:
        UserError: it is damaged: a file is missing or differs from its checksum.
    """
    with artifact.verified(_uri(directory, step), setting="checkpoint") as local:
        arrays = {name: read_weights(local / f"{name}.npz") for name in ("weights", "optimizer", "best_weights")}
        state = artifact.read_json(local / _STATE)
    return Checkpoint(step=step, **arrays, state=state)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: URI of the directory that holds them.
        keep: how many of the newest stay.
    """

    def __init__(self, directory: str, *, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint so that it appears whole or not at all, then remove the oldest ones.

        Later ones go first: a run that is at an earlier step went back because they are damaged.

        Raises:
            OSError: the file system is full or away.
        """
        with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
            local = Path(scratch)
            for name in ("weights", "optimizer", "best_weights"):
                write_weights(getattr(checkpoint, name), local / f"{name}.npz")
            artifact.write_json(local / _STATE, checkpoint.state)
            for step in self.steps():
                if step >= checkpoint.step:
                    self._remove(step)
            artifact.publish(local, _uri(self._directory, checkpoint.step))
        for step in self.steps()[: -self._keep]:
            self._remove(step)

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; valid or not."""
        file_system, path = open_filesystem(self._directory)
        if not file_system.exists(path):
            return []
        names = [name.rstrip("/").rpartition("/")[2] for name in file_system.ls(path, detail=False)]
        return sorted(int(name.removeprefix("step-")) for name in names if name.startswith("step-"))

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest valid checkpoint, None where there is none; `warn` is told of damaged ones."""
        for step in reversed(self.steps()):
            try:
                return load_checkpoint(self._directory, step)
            except UserError as damage:
                warn(f"skipped checkpoint {damage.args[1]}")
        return None

    def _remove(self, step: int) -> None:
        file_system, path = open_filesystem(_uri(self._directory, step))
        if file_system.exists(path):
            file_system.rm(path, recursive=True)


def _uri(directory: str, step: int) -> str:
    return f"{directory}/step-{step:010d}"

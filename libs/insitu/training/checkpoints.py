"""Checkpoints: a run's whole state after a step, as checksummed directories on any file system."""

import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from insitu import artifact
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, in_scratch, is_full, open_filesystem, persist
from insitu.errors import UserError
from insitu.training.weights import read_weights, write_weights

RUN = "run.json"
"""Beside the directory of a run's checkpoints from its first moment on: where it cannot be read, neither can they."""

_STATE = "state.json"
_RETRIES = 6


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
        OSError: it cannot be read.
    """
    with artifact.verified(_uri(directory, step), setting="checkpoint") as local:
        arrays = {name: read_weights(local / f"{name}.npz") for name in ("weights", "optimizer", "best_weights")}
        state = artifact.read_json(local / _STATE)
    return Checkpoint(step=step, **arrays, state=state)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: URI of the directory that holds them, in the run's own, which has its `RUN`.
        keep: how many of the newest stay.
    """

    def __init__(self, directory: str, *, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint so that it appears whole or not at all, then remove the oldest ones.

        Later ones stay: a run that is at an earlier step went back because they could not be read, and takes their
        place when it gets there.

        Raises:
            OSError: the file system is full or away.
        """
        there = self.steps()
        with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
            local = Path(scratch)
            with in_scratch(local):
                for name in ("weights", "optimizer", "best_weights"):
                    write_weights(getattr(checkpoint, name), local / f"{name}.npz")
                artifact.write_json(local / _STATE, checkpoint.state)
            if checkpoint.step in there:
                self._remove(checkpoint.step)
            artifact.publish(local, _uri(self._directory, checkpoint.step))
        for step in sorted({checkpoint.step, *(step for step in there if step < checkpoint.step)})[: -self._keep]:
            self._remove(step)

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; valid or not.

        Raises:
            OSError: the file system is away: not even the run's `RUN` can be read.
        """
        file_system, path = open_filesystem(self._directory)
        file_system.invalidate_cache()  # object stores' clients list what they have seen, not what workers wrote
        try:
            names = [name.rstrip("/").rpartition("/")[2] for name in file_system.ls(path, detail=False)]
        except FileNotFoundError:
            self._check_reachable()
            return []
        return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{10}", name))

    def newest(self, warn: Callable[[str], None], *, at_least: int = 0) -> Checkpoint | None:
        """The newest valid checkpoint, None where there is none.

        Args:
            warn: is told of each that is skipped: it is damaged, or cannot be read for a minute though the run's
                directory can.
            at_least: a step that is known to have been written.

        Raises:
            OSError: the file system is full, or away: no checkpoint of `at_least` or later is listed.
        """
        steps = self.steps()
        if max(steps, default=0) < at_least:
            raise FileNotFoundError(f"{self._directory} does not show the checkpoint of step {at_least}")
        for step in reversed(steps):
            uri = _uri(self._directory, step)
            try:
                return persist(partial(load_checkpoint, self._directory, step), f"reading {uri}", retries=_RETRIES)
            except UserError as damage:
                reason = damage.args[1]
            except FILE_SYSTEM_ERRORS as error:
                if is_full(error):
                    raise
                reason = f"{uri}: it cannot be read ({error})"
            self._check_reachable()
            warn(f"skipped checkpoint {reason}")
        return None

    def _check_reachable(self) -> None:
        """Raise what the file system raises where the run's directory cannot be read."""
        file_system, path = open_filesystem(f"{self._directory.rpartition('/')[0]}/{RUN}")
        file_system.cat_file(path)

    def _remove(self, step: int) -> None:
        file_system, path = open_filesystem(_uri(self._directory, step))
        with suppress(FileNotFoundError):  # a gang that was given up, and yet lives, was faster
            file_system.rm(path, recursive=True)


def _uri(directory: str, step: int) -> str:
    return f"{directory}/step-{step:010d}"

"""`OUTPUT.run`: what a run keeps beside its output until it is published, and goes on from when it is resumed."""

import json
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError
from insitu.recipe import Recipe
from insitu.training.checkpoints import CheckpointStore

_RUN = "run.json"
_MAY_CHANGE = (
    *("training.workers", "training.epochs", "training.checkpoint", "training.max_restarts"),
    *("training.silence_seconds", "data.reader"),
)


class RunDirectory:
    """The directory of one run, on the output's file system.

    Attributes:
        uri: where it is.
        checkpoints: URI of the run's checkpoints.
    """

    def __init__(self, output: str) -> None:
        self.uri = f"{output.rstrip('/')}.run"
        self.checkpoints = f"{self.uri}/checkpoints"

    def open(self, *, resume: bool) -> None:
        """Make the directory, or see whether the one that is there may be gone on from.

        Raises:
            UserError: an unfinished run is there and `resume` is not asked for, or no directory can be made.
        """
        file_system, path = open_filesystem(self.uri)
        try:
            found = file_system.exists(path)
            if not found:
                file_system.makedirs(path)
        except OSError as error:
            raise UserError("--output", f"{self.uri} cannot be made ({error})", "name a place that can") from None
        if found and not resume:
            step = max(self.store(keep=1).steps(), default=0)
            problem = f"an unfinished run is at {self.uri}, its last checkpoint after step {step}"
            raise UserError("--output", problem, "add --resume to go on with it, or remove that directory")
        if resume and not found:
            print(f"nothing to resume at {self.uri}: starting from the first step", file=sys.stderr)

    def claim(self, recipe: Recipe, fingerprint: str) -> None:
        """Note what is trained on what; in a run that is gone on with, compare it.

        Args:
            recipe: resolved.
            fingerprint: of the dataset.

        Raises:
            UserError: another recipe or other data than the run began with.
        """
        file_system, path = open_filesystem(f"{self.uri}/{_RUN}")
        now = {"recipe": recipe.model_dump(mode="json"), "fingerprint": fingerprint}
        if file_system.exists(path):
            _compare(json.loads(file_system.cat_file(path)), now)
        file_system.pipe_file(path, json.dumps(now).encode())

    def store(self, *, keep: int) -> CheckpointStore:
        return CheckpointStore(self.checkpoints, keep=keep)

    def scratch(self) -> str:
        """A new empty directory for a gang."""
        file_system, path = open_filesystem(f"{self.uri}/gang-{uuid4().hex[:8]}")
        file_system.makedirs(path)
        return file_system.unstrip_protocol(path)

    def remove(self) -> None:
        file_system, path = open_filesystem(self.uri)
        file_system.rm(path, recursive=True)


def _compare(then: dict[str, Any], now: dict[str, Any]) -> None:
    if then["fingerprint"] != now["fingerprint"]:
        raise UserError(
            "--data", "it is not the dataset that the run began with", "give that one, or begin with another --output"
        )
    before, after = dict(_leaves(then["recipe"])), dict(_leaves(now["recipe"]))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        if not key.startswith(_MAY_CHANGE):
            raise UserError(
                key,
                f"{after.get(key)}, and the run began with {before.get(key)}",
                "resume with the recipe that it began with, or begin with another --output",
            )
        print(f"resume: {key} was {before.get(key)}, is {after.get(key)}", file=sys.stderr)
    if before["training.workers"] != after["training.workers"]:
        print(
            "resume: with other workers each reads other rows: in the epoch that was begun some are read twice and\n"
            "others not at all; batch normalisation averages over local batches of "
            f"{after['training.global_batch'] // after['training.workers']} images, before "
            f"{before['training.global_batch'] // before['training.workers']}",
            file=sys.stderr,
        )


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of a recipe and their values."""
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{name}.{key}" if name else key)

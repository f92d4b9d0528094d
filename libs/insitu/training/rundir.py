"""`OUTPUT.run`: what a run keeps beside its output until it is published, and goes on from when it is resumed."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from insitu.artifact import upload
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, open_filesystem, persist
from insitu.errors import UserError, WorkerError
from insitu.recipe import Recipe
from insitu.training.checkpoints import CheckpointStore

T = TypeVar("T")
_RUN = "run.json"
_MAY_CHANGE = (
    *("training.workers", "training.threads", "training.epochs", "training.checkpoint", "training.max_restarts"),
    *("training.silence_seconds", "data.reader"),
)


class RunDirectory:
    """The directory of one run, on the output's file system.

    Attributes:
        uri: where it is.
        checkpoints: URI of the run's checkpoints.
        is_new: whether `open` made it.
    """

    def __init__(self, output: str) -> None:
        self.uri = f"{output.rstrip('/')}.run"
        self.checkpoints = f"{self.uri}/checkpoints"
        self.is_new = False

    def open(self, *, resume: bool) -> None:
        """Make the directory, or see whether the one that is there may be gone on from.

        Raises:
            UserError: an unfinished run is there and `resume` is not asked for, its job is still running, it is no
                run's directory, or none can be made.
        """
        file_system, path = open_filesystem(self.uri)
        try:
            self.is_new = not file_system.exists(path)
            if self.is_new:
                file_system.makedirs(path)
                self._own({})
        except FILE_SYSTEM_ERRORS as error:
            if self.is_new:
                with suppress(*FILE_SYSTEM_ERRORS):
                    self.remove()
            raise UserError("--output", f"{self.uri} cannot be made ({error})", "name a place that can") from None
        if not self.is_new:
            self._check_owner(self._read())
            if not resume:
                step = max(self.store(keep=1).steps(), default=0)
                problem = f"an unfinished run is at {self.uri}, its last checkpoint after step {step}"
                raise UserError("--output", problem, "add --resume to go on with it, or remove that directory")
            persist_result(lambda: self._own(self._read()), "taking over the run", self.uri)
        elif resume:
            print(f"nothing to resume at {self.uri}: starting from the first step", file=sys.stderr)

    def _own(self, run: dict[str, Any]) -> None:
        self._write(run | {"host": socket.gethostname(), "pid": os.getpid()})

    def claim(self, recipe: Recipe, fingerprint: str, additions: dict[str, str]) -> None:
        """Note what is trained on what; in a run that is gone on with, compare it.

        Args:
            recipe: resolved.
            fingerprint: of the dataset.
            additions: the fingerprint of each of `data.additions`, by its URI.

        Raises:
            UserError: another recipe or other data than the run began with.
        """
        then = self._read()
        now = {"recipe": recipe.model_dump(mode="json"), "fingerprint": fingerprint, "additions": additions}
        if "recipe" in then:
            _compare(then, now)
        persist_result(lambda: self._write(then | now), "noting the recipe", self.uri)

    def _check_owner(self, run: dict[str, Any]) -> None:
        ours = run["host"] == socket.gethostname() and run["pid"] != os.getpid()
        if ours and Path(f"/proc/{run['pid']}").exists():
            problem = f"the run at {self.uri} is still going on, in process {run['pid']}"
            raise UserError("--output", problem, "wait for it, end it, or name another directory")

    def _read(self) -> dict[str, Any]:
        file_system, path = open_filesystem(f"{self.uri}/{_RUN}")
        try:
            return json.loads(file_system.cat_file(path))
        except (FileNotFoundError, ValueError) as error:
            problem = f"{self.uri} is not the directory of a run that can be gone on with ({_RUN}: {error})"
            raise UserError("--output", problem, "remove it, or name another --output") from None

    def _write(self, run: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
            local = Path(scratch) / _RUN
            local.write_text(json.dumps(run))
            upload(local, f"{self.uri}/{_RUN}")

    def store(self, *, keep: int) -> CheckpointStore:
        return CheckpointStore(self.checkpoints, keep=keep)

    def scratch(self) -> str:
        """A new empty directory for a gang."""
        file_system, path = open_filesystem(f"{self.uri}/gang-{uuid4().hex[:8]}")
        persist_result(
            lambda: file_system.makedirs(path, exist_ok=True), "making a directory for the workers", self.uri
        )
        return file_system.unstrip_protocol(path)

    def remove(self) -> None:
        file_system, path = open_filesystem(self.uri)
        file_system.rm(path, recursive=True)


def persist_result(action: Callable[[], T], what: str, uri: str) -> T:
    """`persist` of what training has made; what a file system raises is the user's to mend.

    Args:
        action, what: as for `persist`.
        uri: what is read or written.

    Raises:
        UserError: its file system is full or stays away.
        WorkerError: raised at once where `action` has the workers do it.
    """
    try:
        return persist(action, what)
    except WorkerError:
        raise
    except FILE_SYSTEM_ERRORS as error:
        mend = "free space or wait for it, then give the same command with --resume, which takes the last checkpoint"
        raise UserError("--output", f"{uri} cannot be written ({error})", mend) from None


def _compare(then: dict[str, Any], now: dict[str, Any]) -> None:
    if then["fingerprint"] != now["fingerprint"]:
        raise UserError(
            "--data", "it is not the dataset that the run began with", "give that one, or begin with another --output"
        )
    for uri, fingerprint in now["additions"].items():
        if then.get("additions", {}).get(uri, fingerprint) != fingerprint:
            problem = f"{uri} does not hold the files that the run began with"
            raise UserError("data.additions", problem, "bring them back, or begin with another --output")
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

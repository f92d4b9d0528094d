"""`OUTPUT.run`: what a run keeps beside its output until it is published, and goes on from when it is resumed."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal, TypeVar
from uuid import uuid4

from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, create, open_filesystem, overwrite, persist, say
from insitu.cluster.lock import Lock, locked
from insitu.errors import UserError, WorkerError
from insitu.recipe import Recipe
from insitu.training.checkpoints import RUN, CheckpointStore

T = TypeVar("T")
_LOCK = "lock"
_MAY_CHANGE = (
    *("training.workers", "training.threads", "training.epochs", "training.checkpoint", "training.max_restarts"),
    *("training.silence_seconds", "training.bigdl.engine_type", "data.reader", "data.cache_mib"),
)


class RunDirectory:
    """The directory of one run, on the output's file system.

    Attributes:
        uri: where it is.
        checkpoints: URI of the run's checkpoints.
        is_new: whether `opened` made it.
    """

    def __init__(self, output: str) -> None:
        self.uri = f"{output.rstrip('/')}.run"
        self.checkpoints = f"{self.uri}/checkpoints"
        self.is_new = False
        self._run: dict[str, Any] = {}
        self._lock: Lock

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Make the directory, or go on with the one that is there, and keep other jobs out of it.

        Raises:
            UserError: an unfinished run is there and `resume` is not asked for, its job is still running, it is no
                run's directory, or none can be made or reached.
        """
        with ExitStack() as held:
            try:
                self._lock = held.enter_context(locked(f"{self.uri}/{_LOCK}", setting="--output", output=self.uri))
                self.is_new = self._make()
            except FILE_SYSTEM_ERRORS as error:
                raise UserError("--output", f"{self.uri} cannot be made ({error})", "name a place that can") from None
            if not self.is_new:
                self._run = persist_result(self._read, "reading the run", self.uri)
                if not resume:
                    self._refuse()
            elif resume:
                print(f"nothing to resume at {self.uri}: starting from the first step", file=sys.stderr)
            yield

    def _make(self) -> bool:
        """Begin a run; False where something is there already."""
        file_system, path = open_filesystem(self.uri)
        names = [place.rstrip("/").rpartition("/")[2] for place in file_system.ls(path, detail=False)]
        if any(name.partition(".")[0] != _LOCK for name in names):
            return False
        return create(f"{self.uri}/{RUN}", json.dumps(self._run).encode())

    def _refuse(self) -> None:
        step = max(persist_result(self.store(keep=1).steps, "listing the checkpoints", self.uri), default=0)
        problem = f"an unfinished run is at {self.uri}, its last checkpoint after step {step}"
        raise UserError("--output", problem, "add --resume to go on with it, or remove that directory")

    def claim(
        self, recipe: Recipe, fingerprint: str, additions: dict[str, str], *, rows: dict[str, int], threads: int
    ) -> None:
        """Note what is trained on what; in a run that is gone on with, compare it.

        Args:
            recipe: resolved.
            fingerprint: of the dataset.
            additions: the fingerprint of each of `data.additions`, by its URI.
            rows: good ones by split.
            threads: of each worker.

        Raises:
            UserError: another recipe or other data than the run began with, or the file system is full or stays away.
        """
        now = {
            "recipe": recipe.model_dump(mode="json"),
            "fingerprint": fingerprint,
            "additions": additions,
            "rows": rows,
            "threads": threads,
        }
        if "recipe" in self._run:
            _compare(self._run, now)
        self._write(self._run | now)

    @property
    def precision(self) -> Literal["bf16", "fp32"] | None:
        """That the run began with; None where it is new."""
        return self._run["recipe"]["training"]["precision"] if "recipe" in self._run else None

    def _read(self) -> dict[str, Any]:
        file_system, path = open_filesystem(f"{self.uri}/{RUN}")
        try:
            return json.loads(file_system.cat_file(path))
        except ValueError as error:
            say(
                f"{self.uri}/{RUN} is damaged ({error}): what the run began with is not compared with what is given now"
            )
            return {}
        except (FileNotFoundError, NotADirectoryError) as error:
            problem = f"{self.uri} is not the directory of a run that can be gone on with ({RUN}: {error})"
            raise UserError("--output", problem, "remove it, or name another --output") from None

    def _write(self, run: dict[str, Any]) -> None:
        content = json.dumps(run).encode()
        persist_result(lambda: overwrite(f"{self.uri}/{RUN}", content), "noting what is trained", self.uri)
        self._run = run

    def store(self, *, keep: int) -> CheckpointStore:
        return CheckpointStore(self.checkpoints, keep=keep)

    def scratch(self, *, kept: str | None = None) -> str:
        """A new empty directory for a gang; what earlier gangs left is removed.

        Args:
            kept: URI of a file that a gang left and that is needed yet.

        Raises:
            UserError: the file system is full, or stays away, or another job has taken the run over.
        """
        self.check_held()
        try:
            self._remove_leftovers(kept)
        except FILE_SYSTEM_ERRORS as error:
            say(f"what earlier gangs left in {self.uri} stays there until the end ({error})")
        uri = f"{self.uri}/gang-{uuid4().hex[:8]}"
        file_system, path = open_filesystem(uri)
        persist_result(
            lambda: file_system.makedirs(path, exist_ok=True), "making a directory for the workers", self.uri
        )
        return uri

    def check_held(self) -> None:
        """Raise `UserError` where another job has taken the run over, because this one stood still for too long."""
        persist_result(self._lock.check, "reading the run's lock", self.uri)

    def _remove_leftovers(self, kept: str | None) -> None:
        """Gangs' directories, and checkpoints that were being written."""
        file_system, path = open_filesystem(self.uri)
        needed = kept.split("/")[-2] if kept else None
        for directory, prefix in ((path, "gang-"), (f"{path}/checkpoints", ".step-")):
            places = file_system.ls(directory, detail=False) if file_system.isdir(directory) else []
            for name in (place.rstrip("/").rpartition("/")[2] for place in places):
                if name.startswith(prefix) and name != needed:
                    file_system.rm(f"{directory}/{name}", recursive=True)

    def exists(self) -> bool:
        file_system, path = open_filesystem(self.uri)
        return file_system.exists(path)

    def discard(self) -> None:
        """Remove a run that has nothing to go on with, but none that another job has taken over."""
        with suppress(UserError):
            self._lock.check()
            self.remove()

    def remove(self) -> None:
        file_system, path = open_filesystem(self.uri)
        file_system.rm(path, recursive=True)


def persist_result(
    action: Callable[[], T],
    what: str,
    uri: str,
    *,
    setting: str = "--output",
    tell: Callable[[str], None] = say,
) -> T:
    """`persist` once a run has begun; what a file system raises is the user's to mend.

    Args:
        action, what, tell: as for `persist`.
        uri: what is read or written.
        setting: what named it, for the error.

    Raises:
        UserError: its file system is full or stays away.
        WorkerError: raised at once where `action` has the workers do it.
    """
    try:
        return persist(action, what, tell=tell)
    except WorkerError:
        raise
    except FILE_SYSTEM_ERRORS as error:
        again = "then give the same command with --resume (insitu sweep: without), which takes the last checkpoint"
        mend = f"free space or wait for it, {again}"
        raise UserError(setting, f"{what} failed at {uri} ({error})", mend) from None


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
    if then.get("rows", now["rows"]) != now["rows"]:  # a step would be of other rows
        raise UserError(
            "--data",
            f"its good rows are {now['rows']}, and were {then['rows']} when the run began",
            "resume with the reader and the libraries that it began with, or begin with another --output",
        )
    if then.get("threads", now["threads"]) != now["threads"]:
        print(
            f"resume: a worker computes with {now['threads']} threads, before {then['threads']}: sums are added\n"
            "in another order, and the weights will differ from those of an uninterrupted run",
            file=sys.stderr,
        )
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

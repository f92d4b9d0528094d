"""What the driver knows of a gang's workers from their events: who lives, who is stuck, who failed."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from insitu.errors import UserError, WorkerError, WorkerLost
from insitu.training.engines.base import Event, Listener
from insitu.training.progress import HEARTBEAT_SECONDS

_PEER_ERRORS = {"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError"}
"""TensorFlow's errors in a collective operation: what a worker sees when another one is gone."""
_PASSING_ERRORS = {
    *("UnknownError", "OSError", "TimeoutError", "EOFError", "BrokenPipeError"),
    *("ConnectionResetError", "ConnectionRefusedError", "ConnectionAbortedError"),
}
"""Of a server that cannot start on its port, a file system that cannot be read, a driver out of reach: worth another
start."""

_SILENT_SECONDS = 60
"""A worker says every few seconds that it lives; after so long without a word it counts as dead."""
_MISSED_BEATS = 2
"""Once a gang has failed, a worker that missed these is the likely cause."""


@dataclass
class _Worker:
    host: str
    heard: float
    moved: float
    progress: int = 0


class Watchdog:
    """Takes all events of a gang, keeps those about its health and passes the others on.

    Args:
        listener: gets every event but `hello`, `alive`, `saving`, `done`, `gone` and `failed`.
        workers: how many there are.
        silence_seconds: how long a worker that answers may make no progress, and how long it may take to start.

    Attributes:
        error: what the listener raised first, None if nothing.
    """

    def __init__(self, listener: Listener, *, workers: int, silence_seconds: float) -> None:
        self.error: Exception | None = None
        self._listener = listener
        self._passing = ThreadPoolExecutor(1)  # a listener that blocks holds up no heartbeat
        self._missing = set(range(workers))
        self._started = self._last_done = time.monotonic()
        self._silence_seconds = silence_seconds
        self._workers: dict[int, _Worker] = {}
        self._failed: list[Event] = []
        self._done: set[int] = set()
        self._gone: list[int] = []
        self._saving = False

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        match event["event"]:
            case "hello":
                self._workers[event["rank"]] = _Worker(event["host"], now, now)
                self._missing.discard(event["rank"])
            case "alive":
                worker = self._workers.get(event["rank"])
                if worker:
                    worker.heard = now
                    if event["progress"] != worker.progress:
                        worker.progress, worker.moved = event["progress"], now
            case "saving":
                self._saving = True
            case "failed":
                self._failed.append(event)
            case "done":
                self._done.add(event["rank"])
                self._last_done = now
                self._workers.pop(event["rank"])
            case "gone":
                if event["rank"] not in self._done:
                    self._gone.append(event["rank"])
            case kind:
                self._saving &= kind != "checkpoint"
                self._passing.submit(self._pass_on, event)

    def close(self) -> None:
        """Wait until the listener has had every event."""
        self._passing.shutdown()

    def any_lives(self) -> bool:
        """Whether a worker that said hello has neither finished nor gone."""
        return bool(dict(self._workers).keys() - set(self._gone))

    def last_progress(self) -> float:
        """When a worker last got further, in `time.monotonic` seconds; now, where one is writing a checkpoint."""
        if self._saving:
            return time.monotonic()
        return max((worker.moved for worker in list(self._workers.values())), default=self._started)

    def stuck(self) -> str:
        """Who holds the gang up for too long; "" if nobody does."""
        now = time.monotonic()
        silent = self._silent(_SILENT_SECONDS)
        if silent:
            return silent
        limit = f"training.silence_seconds = {self._silence_seconds:g}"
        if self._missing and now - self._started >= self._silence_seconds:
            return f"ranks {sorted(self._missing)} did not start ({limit}): no free cores, or no way to the driver"
        workers = dict(self._workers)
        if not workers and not self._missing and now - self._last_done > _SILENT_SECONDS:
            return "every worker is done, yet Spark's Python worker above one of them has not ended: halted or cut off"
        if not workers or now - min(worker.moved for worker in workers.values()) < self._silence_seconds:
            return ""
        slowest = min(workers, key=lambda rank: workers[rank].moved)
        return f"no progress, first on {self._name(slowest)}, yet all answer ({limit}): raise it if a step is longer"

    def failure(self, lost_executor: str, spark_error: str) -> Exception:
        """The error that ended the gang, the cause before its consequences.

        Args:
            lost_executor: what Spark says of it, "" where it lost none.
            spark_error: Spark's own words, for what no worker told.
        """
        for event in self._failed:
            if event["kind"] == "UserError":
                return UserError.from_message(event["text"])
        if lost_executor:
            return WorkerLost(lost_executor)
        for event in self._failed:
            if event["kind"] == "ChildDied":
                return WorkerLost(f"rank {event['rank']} on {event['host']}: {event['text']}")
        own = [event for event in self._failed if event["kind"] not in _PEER_ERRORS]
        if own:
            kind = WorkerLost if own[0]["kind"] in _PASSING_ERRORS else WorkerError
            return kind(f"rank {own[0]['rank']} on {own[0]['host']}:\n{own[0]['text']}")
        silent = self._silent(_MISSED_BEATS * HEARTBEAT_SECONDS)
        if silent:
            return WorkerLost(silent)
        killed = [rank for rank in self._gone if rank not in self._failed_ranks()]
        if killed:
            cause = "someone, a resource manager or the kernel killed it; Spark does not tell its exit code"
            return WorkerLost(f"{self._name(killed[0])}: Spark's Python worker ended without a word: {cause}")
        lost = [f"rank {event['rank']} on {event['host']}:\n{event['text']}" for event in self._failed[:1]]
        return WorkerLost(lost[0] if lost else f"Spark ended the gang: {spark_error.strip().splitlines()[0]}")

    def _pass_on(self, event: Event) -> None:
        try:
            self._listener(event)
        except Exception as error:  # it is raised again where the gang is watched
            self.error = self.error or error

    def _silent(self, seconds: float) -> str:
        """Which running worker has said nothing for so long; "" if none."""
        workers = dict(self._workers)
        running = workers.keys() - self._failed_ranks() - set(self._gone)
        ages = {rank: time.monotonic() - workers[rank].heard for rank in sorted(running)}
        names = [f"{self._name(rank)} ({age:.0f} s ago)" for rank, age in ages.items() if age > seconds]
        return f"{' and '.join(names)} stopped answering: halted, swapped out, or cut off" if names else ""

    def _failed_ranks(self) -> set[int]:
        return {event["rank"] for event in self._failed}

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self._workers[rank].host}"

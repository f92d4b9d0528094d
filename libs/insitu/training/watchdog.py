"""What the driver knows of a gang's workers from their events: who lives, who is stuck, who failed."""

import time
from dataclasses import dataclass

from insitu.errors import UserError, WorkerError, WorkerLost
from insitu.training.engines.base import Event, Listener
from insitu.training.progress import HEARTBEAT_SECONDS

_PEER_ERRORS = {"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError"}
"""TensorFlow's errors in a collective operation: what a worker sees when another one is gone."""

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
        listener: gets every event but `hello`, `alive`, `done`, `gone` and `failed`.
        silence_seconds: how long a worker that answers may make no progress.
    """

    def __init__(self, listener: Listener, silence_seconds: float) -> None:
        self._listener = listener
        self._silence_seconds = silence_seconds
        self._workers: dict[int, _Worker] = {}
        self._failed: list[Event] = []
        self._done: set[int] = set()
        self._gone: list[int] = []

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        match event["event"]:
            case "hello":
                self._workers[event["rank"]] = _Worker(event["host"], now, now)
            case "alive":
                worker = self._workers[event["rank"]]
                worker.heard = now
                if event["progress"] != worker.progress:
                    worker.progress, worker.moved = event["progress"], now
            case "failed":
                self._failed.append(event)
            case "done":
                self._done.add(event["rank"])
                del self._workers[event["rank"]]
            case "gone":
                if event["rank"] not in self._done:
                    self._gone.append(event["rank"])
            case _:
                self._listener(event)

    def stuck(self) -> str:
        """Who holds the gang up for too long; "" if nobody does."""
        now = time.monotonic()
        silent = self._silent(_SILENT_SECONDS)
        if silent:
            return silent
        moved = [worker.moved for worker in self._workers.values()]
        if not moved or now - min(moved) < self._silence_seconds:
            return ""
        limit = f"training.silence_seconds = {self._silence_seconds:g}"
        slowest = min(self._workers, key=lambda rank: self._workers[rank].moved)
        return f"no progress, first on {self._name(slowest)}, yet all answer ({limit}): raise it if a step is longer"

    def failure(self, spark_reason: str) -> Exception:
        """The error that ended the gang, the cause before its consequences.

        Args:
            spark_reason: what Spark says of a lost executor, "" where it lost none.
        """
        for event in self._failed:
            if event["kind"] == "UserError":
                return UserError.from_message(event["text"])
        if spark_reason:
            return WorkerLost(spark_reason)
        for event in self._failed:
            if event["kind"] == "ChildDied":
                return WorkerLost(f"rank {event['rank']} on {event['host']}: {event['text']}")
        own = [event for event in self._failed if event["kind"] not in _PEER_ERRORS]
        if own:
            return WorkerError(f"rank {own[0]['rank']} on {own[0]['host']}:\n{own[0]['text']}")
        silent = self._silent(_MISSED_BEATS * HEARTBEAT_SECONDS)
        if silent:
            return WorkerLost(silent)
        killed = [rank for rank in self._gone if rank not in self._failed_ranks()]
        if killed:
            name, cause = self._name(killed[0]), "someone or a resource manager killed it"
            return WorkerLost(f"{name}: Spark's Python worker ended without a word: {cause}")
        lost = [f"rank {event['rank']} on {event['host']}:\n{event['text']}" for event in self._failed[:1]]
        return WorkerLost(lost[0] if lost else "Spark ended the gang, and no worker said why; its log has the reason")

    def _silent(self, seconds: float) -> str:
        """Which running worker has said nothing for so long; "" if none."""
        running = self._workers.keys() - self._failed_ranks() - set(self._gone)
        ages = {rank: time.monotonic() - self._workers[rank].heard for rank in sorted(running)}
        names = [f"{self._name(rank)} ({age:.0f} s ago)" for rank, age in ages.items() if age > seconds]
        return f"{' and '.join(names)} stopped answering: halted, swapped out, or cut off" if names else ""

    def _failed_ranks(self) -> set[int]:
        return {event["rank"] for event in self._failed}

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self._workers[rank].host}"

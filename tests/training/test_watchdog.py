"""What the driver makes of a gang's events: the cause before its consequences."""

import itertools
import time
from typing import Any

import pytest

from insitu.errors import UserError, WorkerError, WorkerLost
from insitu.training.watchdog import Watchdog

USER = {"event": "failed", "rank": 0, "host": "a", "kind": "UserError", "text": "data.size: too small; raise it"}
DEAD = {"event": "failed", "rank": 1, "host": "b", "kind": "ChildDied", "text": "exit code 137"}
OWN = {"event": "failed", "rank": 2, "host": "c", "kind": "KeyError", "text": "Traceback: KeyError"}
PEER = {"event": "failed", "rank": 3, "host": "d", "kind": "UnavailableError", "text": "Socket closed"}
GONE = {"event": "gone", "rank": 4}
BY_CAUSE = [USER, DEAD, OWN, GONE, PEER]
SOME = [*itertools.combinations(BY_CAUSE, 2), *((event,) for event in BY_CAUSE)]
TOLD = {
    "UserError": (UserError, "data.size: too small; raise it"),
    "ChildDied": (WorkerLost, "rank 1 on b: exit code 137"),
    "KeyError": (WorkerError, "rank 2 on c:\nTraceback: KeyError"),
    "gone": (WorkerLost, "rank 4 on e: Spark's Python worker ended without a word: someone"),
    "UnavailableError": (WorkerLost, "rank 3 on d:\nSocket closed"),
}


@pytest.fixture
def passed() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def watchdog(passed: list[dict[str, Any]]) -> Watchdog:
    watchdog = Watchdog(passed.append, workers=5, silence_seconds=600)
    for rank, host in enumerate("abcde"):
        watchdog({"event": "hello", "rank": rank, "host": host})
    return watchdog


@pytest.mark.parametrize("events", SOME)
@pytest.mark.parametrize("backwards", [False, True])
def test_cause_is_told_whatever_came_first(
    watchdog: Watchdog, events: tuple[dict[str, Any], ...], backwards: bool
) -> None:
    for event in reversed(events) if backwards else events:
        watchdog(event)
    kind, message = TOLD[events[0].get("kind", "gone")]
    failure = watchdog.failure("", "Spark's words")
    assert type(failure) is kind
    assert str(failure).startswith(message)


def test_workers_live_until_they_are_done_or_gone(watchdog: Watchdog) -> None:
    for rank in range(4):
        assert watchdog.any_lives()
        watchdog({"event": "done", "rank": rank})
    assert watchdog.any_lives()
    watchdog(GONE)
    assert not watchdog.any_lives()


@pytest.mark.parametrize("kind", ["UnknownError", "ConnectionResetError", "EOFError", "BrokenPipeError"])
def test_errors_that_may_pass_are_worth_another_start(watchdog: Watchdog, kind: str) -> None:
    watchdog(OWN | {"kind": kind})
    assert isinstance(watchdog.failure("", "Spark's words"), WorkerLost)


def test_lost_executor_comes_before_the_deaths_of_its_workers(watchdog: Watchdog) -> None:
    watchdog(DEAD)
    assert str(watchdog.failure("executor 1 on b was lost", "")) == "executor 1 on b was lost"


def test_worker_that_ended_well_is_no_cause(watchdog: Watchdog) -> None:
    watchdog({"event": "done", "rank": 4})
    watchdog(GONE)
    watchdog(PEER)
    assert str(watchdog.failure("", "Spark's words")).startswith("rank 3 on d")


def test_other_events_are_passed_on(watchdog: Watchdog, passed: list[dict[str, Any]]) -> None:
    watchdog({"event": "alive", "rank": 0, "progress": 3})
    watchdog({"event": "step", "step": 1})
    watchdog.close()
    assert passed == [{"event": "step", "step": 1}]


def test_what_the_listener_raises_is_kept() -> None:
    def refuse(event: dict[str, Any]) -> None:
        raise KeyError(event["event"])

    watchdog = Watchdog(refuse, workers=1, silence_seconds=600)
    watchdog({"event": "step"})
    watchdog.close()
    assert isinstance(watchdog.error, KeyError)


def test_heartbeat_after_the_end_is_no_fault(watchdog: Watchdog) -> None:
    watchdog({"event": "done", "rank": 0})
    watchdog({"event": "alive", "rank": 0, "progress": 1})


def test_what_no_worker_told_is_told_in_sparks_words(watchdog: Watchdog) -> None:
    assert str(watchdog.failure("", "no slots\n\tat java")) == "Spark ended the gang: no slots"


def test_writing_a_checkpoint_is_progress_until_it_is_written(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count(time.monotonic(), 3600)
    monkeypatch.setattr(time, "monotonic", lambda: next(hours))
    watchdog({"event": "saving"})
    assert watchdog.last_progress() < watchdog.last_progress()
    watchdog({"event": "checkpoint", "step": 1, "seconds": 85.0, "error": None})
    assert watchdog.last_progress() == watchdog.last_progress()


def test_gang_that_makes_no_progress_is_stuck(passed: list[dict[str, Any]]) -> None:
    watchdog = Watchdog(passed.append, workers=1, silence_seconds=0)
    assert watchdog.stuck().startswith("ranks [0] did not start (training.silence_seconds = 0)")
    watchdog({"event": "hello", "rank": 0, "host": "a"})
    assert watchdog.stuck().startswith(
        "no progress, first on rank 0 on a, yet all answer (training.silence_seconds = 0)"
    )


def test_gang_that_is_done_but_does_not_end_is_stuck(
    passed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = Watchdog(passed.append, workers=1, silence_seconds=600)
    watchdog({"event": "hello", "rank": 0, "host": "a"})
    watchdog({"event": "done", "rank": 0})
    assert watchdog.stuck() == ""
    monkeypatch.setattr("insitu.training.watchdog._SILENT_SECONDS", -1)
    assert watchdog.stuck().startswith(
        "every worker is done, yet Spark's Python worker above one of them has not ended"
    )

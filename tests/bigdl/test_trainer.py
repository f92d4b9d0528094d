"""Workers of BigDL that take long, and Ctrl-C meanwhile; they are a stand-in at the seam between Python and the JVM."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from insitu.bigdl import trainer
from insitu.bigdl.trainer import Trainer
from insitu.cluster.interrupts import DeferredInterrupts
from insitu.errors import WorkerLost

CALLS, CALL_SECONDS = 6, 0.2


class SlowWorkers:
    """`jvm/Trainer.scala`, as far as these tests call it."""

    def __init__(self) -> None:
        self._calls = iter([*range(1, CALLS + 1), 0])
        self.ended: list[str] = []

    def start(self) -> list[str]:
        return []

    def beginValidation(self) -> None:
        pass

    def validate(self, directory: str) -> int:
        time.sleep(CALL_SECONDS)
        return next(self._calls)

    def step(self, step: int, rate: float) -> float:
        time.sleep(3)
        return 0.0

    def save(self, directory: str) -> int:
        time.sleep(1)
        return 2

    def cancel(self) -> None:
        self.ended.append("cancelled")

    def close(self) -> None:
        self.ended.append("closed")


def made(interrupts: DeferredInterrupts, *, silence_seconds: float) -> Trainer:
    package = SimpleNamespace(Trainer=lambda session, settings: SlowWorkers())
    bigdl = SimpleNamespace(analytics=SimpleNamespace(bigdl=SimpleNamespace(insitu=package)))
    jvm = SimpleNamespace(com=SimpleNamespace(intel=bigdl))
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(_jvm=jvm), _jsparkSession=None)
    settings: dict[str, Any] = {"executors": [], "hosts": [], "initial": ""}
    return Trainer(spark, settings, silence_seconds=silence_seconds, interrupts=interrupts)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """Workers that were told to stop; what a minute is of a job is 0.4 s here."""
    monkeypatch.setattr(trainer, "STOP_SECONDS", 0.4)
    monkeypatch.setattr(trainer, "_POLL_SECONDS", 0.05)
    with (
        contextlib.suppress(KeyboardInterrupt),
        DeferredInterrupts(lambda: None) as interrupts,
        made(interrupts, silence_seconds=60) as stopped,
    ):
        os.kill(os.getpid(), signal.SIGINT)
        yield stopped


def test_validation_of_many_short_calls_goes_on(workers: Trainer) -> None:
    assert CALLS * CALL_SECONDS > 2 * trainer.STOP_SECONDS
    assert list(workers.validate("")) == [1, 3, 6, 10, 15, 21]


def test_checkpoint_is_written_to_its_end(workers: Trainer) -> None:
    assert workers.save("") == 2


def test_step_that_does_not_end_is_given_up(workers: Trainer) -> None:
    with pytest.raises(KeyboardInterrupt):
        workers.step(0, 0.1)


@pytest.mark.parametrize("fails", [True, False], ids=["raises", "hangs"])
def test_workers_whose_start_fails_are_ended(fails: bool) -> None:
    with DeferredInterrupts(lambda: None) as interrupts:
        trainer = made(interrupts, silence_seconds=1)
        java = trainer._trainer

        def start() -> list[str]:
            while not fails and "cancelled" not in java.ended:
                time.sleep(0.1)
            raise OSError("the initial weights cannot be read")

        java.start = start
        with pytest.raises(OSError if fails else WorkerLost), trainer:
            pass
        assert java.ended == ["cancelled", "closed"]


def test_workers_that_cannot_be_ended_cost_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    with DeferredInterrupts(lambda: None) as interrupts, made(interrupts, silence_seconds=9) as trained:

        def close() -> None:
            raise OSError("executor 1 is lost")

        trained._trainer.close = close
    assert "BigDL's workers were not ended: what they hold in memory is free" in capsys.readouterr().err


def test_step_longer_than_the_silence_is_a_lost_worker() -> None:
    with (
        DeferredInterrupts(lambda: None) as interrupts,
        pytest.raises(WorkerLost, match="the workers did not answer for 1 s"),
        made(interrupts, silence_seconds=1) as silent,
    ):
        silent.step(0, 0.1)

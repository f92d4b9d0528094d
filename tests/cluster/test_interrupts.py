"""Signals that wait for a safe moment."""

import os
import signal

import pytest

from insitu.cluster.interrupts import DeferredInterrupts


def test_first_signal_waits_and_is_told_and_the_second_raises() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with DeferredInterrupts(lambda: told.append("stopping")) as interrupts:
        interrupts.deliver()
        os.kill(os.getpid(), signal.SIGINT)
        assert (interrupts.waiting, told) == (True, [])
        for _ in range(2):
            interrupts.deliver(after_seconds=3600)
            assert told == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.deliver()
        interrupts.deliver()
    assert signal.getsignal(signal.SIGINT) == before


def test_what_the_handler_raises_is_what_is_delivered() -> None:
    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with DeferredInterrupts(lambda: None) as interrupts:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(SystemExit, match="143"):
                interrupts.deliver()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_nobody_delivered_is_raised_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), DeferredInterrupts(lambda: None):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), DeferredInterrupts(lambda: None):
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("a worker was lost meanwhile")

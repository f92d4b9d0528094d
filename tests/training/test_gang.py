"""A gang's Spark job that does not end."""

import subprocess
import sys
import threading

import pytest

from insitu.training import gang
from insitu.training.gang import in_background, wait_for_cancelled

HANGING = """
import threading
from insitu.training.gang import in_background
in_background(threading.Event().wait)
"""


def test_cancelled_job_that_does_not_end_is_told_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gang, "_CANCEL_SECONDS", 0.1)
    released = threading.Event()

    def hang() -> None:
        released.wait()

    job = in_background(hang)
    wait_for_cancelled(job, lambda: False)
    assert "the cancelled gang has not ended within 0.1 s" in capsys.readouterr().err
    released.set()
    wait_for_cancelled(job, lambda: False)
    assert job.done() and capsys.readouterr().err == ""


def test_workers_that_outlive_their_job_are_waited_for() -> None:
    job, lives = in_background(lambda: None), [True, True, False]
    wait_for_cancelled(job, lambda: lives.pop(0))
    assert lives == []


def test_job_that_does_not_end_keeps_no_process_alive() -> None:
    subprocess.run([sys.executable, "-c", HANGING], check=True, timeout=60)


def test_error_of_a_job_is_its_futures() -> None:
    def fail() -> None:
        raise KeyError("a task's")

    assert isinstance(in_background(fail).exception(timeout=10), KeyError)

"""What a run costs beside its steps: starting, checkpoints, memory."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace

import psutil

from comparisons import TURNS, Comparison, compare
from job_runs import Job, finished, wait_for_line
from lines import emit
from memory import peak_kib
from xrays import xrays

_POLL_SECONDS = 0.5
_START_SECONDS = 30.0


def start_up() -> None:
    """Seconds from spark-submit to the first step of DenseNet-121 in local mode's one worker, against half a minute."""
    job = Job(model="densenet121", workers=1, local_batch=32, steps=2)
    xrays(job.rows)
    seconds = []
    for _ in range(TURNS):
        started = time.monotonic()
        with job.submitted() as (process, _):
            wait_for_line(process, "step ")
            seconds.append(time.monotonic() - started)
    emit(
        "start_up",
        subject=("spark-submit to the first step of DenseNet-121", min(seconds)),
        peer=("what is allowed", _START_SECONDS),
        unit="seconds",
        less_is_better=True,
    )


def checkpoint_cost() -> None:
    """The second epoch of DenseNet-121 with a checkpoint every minute, and without one; it takes some minutes."""
    never = Job(model="densenet121", steps=80, settings=("training.epochs=2", "training.checkpoint.every_minutes=1000"))
    every_minute = replace(never, settings=("training.epochs=2", "training.checkpoint.every_minutes=1"))
    compare({"checkpoint_cost": [Comparison(subjects=(every_minute,), peers=(never,))]})


def memory() -> None:
    """A worker's peak memory on 27 MB of images and on 270 MB, both more than it may shuffle at once."""
    small = Job(
        model="squeezenet",
        workers=1,
        local_batch=64,
        steps=16,
        settings=("data.shuffle_mib=8", "data.size=[64, 64]", "training.epochs=1"),
    )
    peaks = []
    for job in (small, replace(small, steps=10 * small.steps)):
        with job.submitted() as (process, _):
            peaks.append(peak_mib(process))
            finished(process)
    emit_peaks("memory", peaks)


def emit_peaks(benchmark: str, peaks: Sequence[float]) -> None:
    """Print the line of a worker's peaks in MiB, on some data and on ten times as much."""
    subject, peer = ("a worker's peak on ten times the data", peaks[1]), ("on the data", peaks[0])
    emit(benchmark, subject=subject, peer=peer, unit="MiB", less_is_better=True)


def peak_mib(process: "subprocess.Popen[str]") -> float:
    """Of the largest of a job's Python workers, as the kernel counts it, when the job has ended."""
    most_kib = 0
    while process.poll() is None:
        workers = [child for child in psutil.Process(process.pid).children(recursive=True) if _is_worker(child)]
        most_kib = max([most_kib, *(peak_kib(worker.pid) for worker in workers)])
        time.sleep(_POLL_SECONDS)
    return most_kib / 1024


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "pyspark.daemon" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False

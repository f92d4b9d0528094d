"""What scheduled scoring costs as its history and its data grow."""

import tempfile
import time
from pathlib import Path

from costs import emit_peaks, peak_mib
from job_runs import finished
from lines import emit
from scoring_runs import files, quantised, scoring
from xrays import BUILD

_MODEL = "resnet50"
_HISTORY = 10
_TURNS = 3
_NOTHING_SECONDS = 30.0


def incremental() -> None:
    """The whole command with nothing new, after 100 batches against after 10, and against half a minute."""
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        outputs = {batches: Path(scratch) / str(batches) for batches in (10 * _HISTORY, _HISTORY)}
        for batches, output in outputs.items():
            finished(scoring(quantised(_MODEL), files(batches, rows=1), output, most=1))
        seconds = dict.fromkeys(outputs, float("inf"))
        for _ in range(_TURNS):
            for batches, output in outputs.items():
                started = time.monotonic()
                finished(scoring(quantised(_MODEL), files(batches, rows=1), output, most=1))
                seconds[batches] = min(seconds[batches], time.monotonic() - started)
    long, short = ((f"nothing new after {batches} batches", value) for batches, value in seconds.items())
    emit("incremental", subject=long, peer=short, unit="seconds", less_is_better=True)
    allowed = ("what is allowed", _NOTHING_SECONDS)
    emit("incremental_seconds", subject=long, peer=allowed, unit="seconds", less_is_better=True)


def scoring_memory() -> None:
    """A worker's peak memory on 1 024 rows and on ten times as many, each in one batch."""
    peaks = []
    for number in (4, 40):
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            process = scoring(quantised(_MODEL), files(number), Path(scratch) / "scores", most=number)
            peaks.append(peak_mib(process))
            finished(process)
    emit_peaks("scoring_memory", peaks)

"""What became of each run over a scored folder, in a file of its own, those that found nothing new or failed too."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, create, open_filesystem
from insitu.scoring.monitoring_page import write_page
from insitu.scoring.outbox import RUNS, SCORES

_DONE, _INTERRUPTED = "done", "interrupted"


class Scored(Protocol):
    """What a run has done so far: counts by name, and what has drifted."""

    counts: dict[str, int]
    alarms: list[dict[str, Any]]


@contextmanager
def recorded(output: str, scored: Scored, *, run: str) -> Iterator[None]:
    """Record what becomes of the block, and draw the page anew where it published a batch or failed.

    The record has `started` and `seconds`, `outcome` (done, interrupted, or what failed), `batches`, `files`, `rows`,
    `quarantined` and `alarms`. A run that is killed leaves none.

    Args:
        output: URI of what the run writes to.
        scored: read when the block ends.
        run: another one each time.
    """
    started = time.time()
    try:
        yield
    except Exception as error:
        told = " ".join(str(error).split())
        with suppress(*FILE_SYSTEM_ERRORS):  # the run fails with its own error
            _record(output, scored, run, started, f"{type(error).__name__}: {told}")
            _draw(output)
        raise
    except BaseException:
        with suppress(*FILE_SYSTEM_ERRORS):
            _record(output, scored, run, started, _INTERRUPTED)
        raise
    _record(output, scored, run, started, _DONE)
    if scored.counts["batches"]:
        _draw(output)


def _record(output: str, scored: Scored, run: str, started: float, outcome: str) -> None:
    name = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(started))
    record = {"started": started, "seconds": time.time() - started, "outcome": outcome, **scored.counts}
    create(f"{output}/{RUNS}/{name}-{run[:8]}.json", json.dumps(record | {"alarms": scored.alarms}).encode())


def _draw(output: str) -> None:
    file_system, path = open_filesystem(f"{output}/{SCORES}")
    if file_system.exists(path):
        write_page(output)

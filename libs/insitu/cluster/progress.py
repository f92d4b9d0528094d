"""How far long work on Spark is: a bar on a terminal, now and then a line in a log."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TextIO

from pyspark.sql import SparkSession
from tqdm import tqdm

_POLL_SECONDS = 0.5
_LINE_SECONDS = 30
_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


@dataclass(frozen=True)
class Progress:
    """How many of how many are done, and what else there is to say."""

    done: int
    total: int
    note: str = ""


@contextmanager
def shown(
    poll: Callable[[], Progress], *, name: str, what: str, stream: TextIO, line_seconds: float = _LINE_SECONDS
) -> Iterator[None]:
    """Show the progress of what the block does, while it runs.

    Args:
        poll: gives the progress, from another thread.
        name: of the work, before the bar or the line.
        what: is counted.
        stream: such as `sys.stderr`.
        line_seconds: between lines where that is no terminal.
    """
    ended = Event()

    def watch() -> None:
        next_line_seconds = time.monotonic() + line_seconds
        with tqdm(desc=name, total=0, file=stream, disable=None, leave=False, bar_format=_FORMAT, miniters=0) as bar:
            while not ended.wait(min(_POLL_SECONDS, line_seconds)):
                progress = poll()
                bar.total = progress.total
                bar.set_postfix_str(progress.note, refresh=False)
                bar.update(progress.done - bar.n)
                if bar.disable and progress.done and time.monotonic() >= next_line_seconds:
                    next_line_seconds += line_seconds
                    note = f", {progress.note}" if progress.note else ""
                    print(f"{name}: {what} {progress.done} of {progress.total}{note}", file=stream, flush=True)

    with ThreadPoolExecutor(1, thread_name_prefix="insitu-progress") as thread:
        watching = thread.submit(watch)
        try:
            yield
        finally:
            ended.set()
        watching.result()


def running_tasks(spark: SparkSession) -> Progress:
    """The tasks of all stages that run now."""
    tracker = spark.sparkContext.statusTracker()
    stages = [stage for number in tracker.getActiveStageIds() if (stage := tracker.getStageInfo(number))]
    return Progress(sum(stage.numCompletedTasks for stage in stages), sum(stage.numTasks for stage in stages))

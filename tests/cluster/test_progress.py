import io
import time
from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from insitu.cluster.progress import Progress, running_tasks, shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(stream: io.StringIO, *, until: Callable[[str], bool]) -> str:
    """What is shown of three pieces of work, until it is enough."""
    with shown(lambda: Progress(3, 3, "loss 0.125"), name="als", what="iteration", stream=stream, line_seconds=0.01):
        for _ in range(200):
            if until(stream.getvalue()):
                break
            time.sleep(0.05)
    return stream.getvalue()


def test_a_log_gets_whole_lines() -> None:
    said = watched(io.StringIO(), until=lambda said: "iteration 3" in said)
    assert "als: iteration 3 of 3, loss 0.125\n" in said
    assert "\r" not in said


def test_a_terminal_gets_a_bar() -> None:
    said = watched(Terminal(), until=lambda said: "3/3" in said)
    assert "3/3" in said
    assert "loss 0.125" in said
    assert "als: iteration" not in said


def test_the_works_own_error_is_what_is_raised() -> None:
    def broken() -> Progress:
        raise OSError("the gateway is gone")

    work = shown(broken, name="als", what="iteration", stream=io.StringIO(), line_seconds=0.01)
    with pytest.raises(ValueError, match="no rating"), work:
        time.sleep(0.1)
        raise ValueError("no rating")


def test_tasks_that_run(spark: SparkSession) -> None:
    assert running_tasks(spark) == Progress(0, 0)
    seen = []

    def poll() -> Progress:
        seen.append(running_tasks(spark))
        return seen[-1]

    with shown(poll, name="scoring", what="task", stream=io.StringIO(), line_seconds=0.05):
        spark.sparkContext.parallelize(range(6), 6).foreach(lambda _: time.sleep(0.5))
    assert {progress.total for progress in seen} <= {0, 6}
    assert {progress.done for progress in seen} & {1, 2, 3, 4, 5}

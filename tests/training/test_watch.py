"""What a person sees of a run: a bar on a real pseudo-terminal, lines in a file."""

import fcntl
import io
import os
import re
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TextIO

import pytest

from insitu.training.watch import ProgressBar
from training.run_events import epoch, start, step

COLUMNS = 80

EPOCH_LINE = (
    "epoch 1: loss 0.5000, validation loss 0.2500, validation accuracy 0.7500, validation auc_macro 0.9000, "
    "learning rate 0.01, 123.4 images/s"
)


class Terminal:
    """A real pseudo-terminal: what is written to `stream`, and the screen that it makes."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.stream: TextIO = os.fdopen(slave, "w")
        self._written = ""

    def screen(self) -> list[str]:
        """The lines so far; a bar redraws its own from the left."""
        self.stream.write("\0")
        self.stream.flush()
        while not self._written.endswith("\0"):
            self._written += os.read(self._master, 1 << 16).decode()
        self._written = self._written[:-1]
        return [self._overwritten(line).rstrip() for line in self._written.replace("\r\n", "\n").split("\n")]

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)

    @staticmethod
    def _overwritten(line: str) -> str:
        shown = ""
        for text in line.split("\r"):
            shown = text + shown[len(text) :]
        return shown


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with closing(Terminal()) as terminal:
        yield terminal


def test_bar_shows_epoch_step_loss_metric_speed_and_time_left(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    for event in (start(), step(1), epoch(0), step(51)):
        bar(event)
    time.sleep(0.6)  # longer than between two refreshes
    bar(step(75))
    line = terminal.screen()[-1]
    assert re.fullmatch(r"epoch 2/3 \|\S+ *\| 75/150 \[00:0\d<00:0\d, loss 0.013, auc_macro 0.900, 195.0 img/s\]", line)
    assert len(line) <= COLUMNS
    bar.close()


def test_time_left_is_unknown_before_the_second_step(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    for event in (start(), step(75)):
        bar(event)
    bar.say("now")
    assert "| 75/150 [00:00<?, " in terminal.screen()[-1]
    bar.close()


def test_bar_of_a_split_without_auc_shows_the_accuracy(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    for event in (start(), epoch(0, auc=None), step(51)):
        bar(event)
    bar.say("now")
    assert "accuracy 0.750" in terminal.screen()[-1]
    bar.close()


def test_bar_says_while_it_validates(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    for event in (start(), step(50), {"event": "validation", "epoch": 0, "rows": 32, "of": 200}):
        bar(event)
    bar.say("now")
    assert terminal.screen()[-1].startswith("epoch 1/3, validating 32/200 |")
    bar(epoch(0))
    assert terminal.screen()[-1].startswith("epoch 1/3 |")
    bar.close()


def test_epochs_leave_lines_above_the_bar_and_the_end_takes_the_bar_away(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    for event in (start(), step(1), epoch(0)):
        bar(event)
    assert terminal.screen()[-1].startswith("epoch 1/3 |")
    bar.close()
    shown = [line for line in terminal.screen() if line]
    # The terminal breaks no line by itself here: the epoch's is longer than the screen is wide.
    assert shown == ["training 3 epochs of 50 steps, 64 images a step", EPOCH_LINE]


def test_resumed_run_starts_the_bar_where_it_resumes_and_says_so(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    bar(start(75))
    said, line = terminal.screen()
    assert said == "resuming after step 75 of 150, in epoch 2 of 3"
    assert re.match(r"epoch 2/3 \|\S+ *\| 75/150 ", line)
    bar.close()


def test_restarted_run_has_one_bar(terminal: Terminal) -> None:
    bar = ProgressBar(terminal.stream)
    restart = {"event": "restart", "attempt": 1, "of": 3, "reason": "rank 1 on h: killed", "step": 20}
    for event in (start(), step(30), restart, start(20)):
        bar(event)
    *_, said, resumed, line = terminal.screen()
    assert said == "restart 1 of 3 at step 20: rank 1 on h: killed"
    assert resumed == "resuming after step 20 of 150, in epoch 1 of 3"
    assert "| 20/150 " in line
    bar.close()


def test_slow_terminal_is_written_to_seldom() -> None:
    class Counting(io.StringIO):
        writes = 0

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            self.writes += bool(text)
            return super().write(text)

    stream = Counting()
    bar = ProgressBar(stream)
    bar(start())
    before, began = stream.writes, time.monotonic()
    for number in range(1, 151):
        bar(step(number))
    assert stream.writes - before <= 1 + 2 * (time.monotonic() - began)
    bar.close()


def test_log_on_a_full_disk_costs_lines_and_no_training() -> None:
    with open("/dev/full", "w", buffering=1) as full, closing(ProgressBar(full)) as bar:
        for event in (start(), step(1), epoch(0)):
            bar(event)
        bar.say("no space left")
        with pytest.raises(OSError):
            print("a line", file=full)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # else it cannot be closed


def test_without_a_terminal_there_are_lines_and_a_step_in_30_seconds(tmp_path: Path) -> None:
    failed = {"event": "checkpoint", "step": 3, "seconds": 0.1, "error": "No space left on device"}
    with (tmp_path / "log").open("w") as stream:
        bar = ProgressBar(stream)
        bar(start())
        bar({"event": "worker", "rank": 1, "host": "node7", "cores": [4, 5], "threads": 2})
        for number, seconds in ((1, 0.0), (2, 29.9), (3, 30.0), (4, 59.0), (5, 61.5)):
            bar(step(number, seconds=seconds))
        bar({"event": "validation", "epoch": 0, "rows": 32, "of": 200})
        bar(failed)
        bar({"event": "checkpoint", "step": 4, "seconds": 0.1, "error": None})
        bar({"event": "checkpoint", "step": 5, "seconds": 0.1, "error": None})
        bar(epoch(0))
        bar({"event": "restart", "attempt": 1, "of": 3, "reason": "rank 1 on node7: killed", "step": 4})
        bar(start(4))
        bar(step(5, seconds=1.0))
        bar(epoch(0))
        bar(step(51, seconds=4601.0))
        bar.close()
    assert (tmp_path / "log").read_text().splitlines() == [
        "training 3 epochs of 50 steps, 64 images a step",
        "worker 1 on node7: cores 4-5, 2 threads",
        "step 1/150 in epoch 1/3: loss 1.0000, learning rate 0.01, 121.0 images/s, ? left",
        "step 3/150 in epoch 1/3: loss 0.3333, learning rate 0.01, 123.0 images/s, 36:45 left",
        "step 5/150 in epoch 1/3: loss 0.2000, learning rate 0.01, 125.0 images/s, 37:09 left",
        "no checkpoint at step 3: No space left on device",
        "checkpoint at step 4: they can be written again",
        EPOCH_LINE,
        "restart 1 of 3 at step 4: rank 1 on node7: killed",
        "resuming after step 4 of 150, in epoch 1 of 3",
        "step 5/150 in epoch 1/3: loss 0.2000, learning rate 0.01, 125.0 images/s, ? left",
        EPOCH_LINE,
        "step 51/150 in epoch 2/3: loss 0.0196, auc_macro 0.900, learning rate 0.01, 171.0 images/s, 2:45:00 left",
    ]

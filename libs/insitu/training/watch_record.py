"""What a run writes about itself while it runs: history, steps, and scalars for TensorBoard."""

import json
import time
from collections.abc import Callable
from typing import Any

from insitu.artifact import HISTORY
from insitu.cluster.filesystem import open_filesystem, overwrite
from insitu.training.engines.base import Event
from insitu.training.watch_tensorboard import EventFile
from insitu.training.watch_upload import PatientUpload

STEPS = "steps.jsonl"
DRIVERS = "drivers.jsonl"
TENSORBOARD = "tensorboard"

_POINT_SECONDS = 10
_UPLOAD_SECONDS = 60

Line = dict[str, Any]


class RunRecord:
    """A listener that keeps a directory on any file system in step with a run.

    `history.jsonl` has a line an epoch, the `epoch` event; `steps.jsonl` a line for a `step` event
    in 10 s; `drivers.jsonl` a line for each of `drivers`; they appear whole with every upload.
    `tensorboard/` has event files, overwritten in place so that a running TensorBoard follows: `loss`,
    `learning_rate` and `images_per_second` of each `step` event, and `validation/…` by epoch. Uploads
    happen at the start, after each epoch, every minute and at the end. What a restarted or resumed run
    repeats replaces what was there.

    Args:
        uri: the directory; what an earlier record left there is gone on with.
        started: when this driver began, in seconds since 1970.
        tell: takes a line for the user when the directory cannot be written, and when it can again.

    Raises:
        OSError: what an earlier record left cannot be read.
    """

    def __init__(self, uri: str, *, started: float, tell: Callable[[str], None]) -> None:
        self._uri = uri
        drivers = _read_lines(f"{uri}/{DRIVERS}", tell)
        self._earlier = [
            driver for driver in drivers if driver["first_step"] is not None
        ]  # that got as far as training
        self._driver: Line = {"started": started, "first_step": None, "workers": [], "restarts": []}
        self._history = _read_lines(f"{uri}/{HISTORY}", tell)
        self._steps = _read_lines(f"{uri}/{STEPS}", tell)
        self._event_file = EventFile()
        self._upload = PatientUpload(self._write, destination=uri, tell=tell)
        self._next_point_seconds = self._next_upload_seconds = 0.0

    @property
    def history(self) -> list[Line]:
        """A line an epoch so far, as in `TrainingResult.history`."""
        return list(self._history)

    @property
    def began(self) -> float:
        """When the run began, in seconds since 1970: its first driver."""
        return self.drivers[0]["started"]

    @property
    def drivers(self) -> list[Line]:
        """The drivers that have worked on the run, this one last.

        When it `started`, in seconds since 1970; for how many `seconds` it worked, known to a minute where it was
        killed; the `first_step` that it went on from; its `workers` by rank, as in the `worker` event; its
        `restarts`: `step`, `reason` and `seconds` since the run began.
        """
        return [*self._earlier, self._driver | {"seconds": round(time.time() - self._driver["started"], 1)}]

    def __call__(self, event: Event) -> None:
        line = {name: value for name, value in event.items() if name != "event"}
        match event["event"]:
            case "start":
                self._start(line["first_step"])
            case "worker":
                self._worker(line)
            case "step":
                self._step(line)
            case "epoch":
                self._epoch(line)
            case "restart":
                self._restart(line)
        self._upload.poll()

    def close(self) -> None:
        """Write all that is left; waits for a file system that is away, but no longer than a minute."""
        self._upload.close()

    # What is noted below is replaced and never changed: the upload's thread reads them.

    def _start(self, first_step: int) -> None:
        if self._driver["first_step"] is None:
            self._driver = self._driver | {"first_step": first_step}
        self._history = [line for line in self._history if line["step"] <= first_step]
        self._steps = [line for line in self._steps if line["step"] <= first_step]
        self._event_file.restart(after_step=first_step)
        self._next_point_seconds = self._next_upload_seconds = 0.0
        self._upload.request()

    def _worker(self, line: Line) -> None:
        workers = {worker["rank"]: worker for worker in [*self._driver["workers"], line]}
        self._driver = self._driver | {"workers": [workers[rank] for rank in sorted(workers)]}

    def _restart(self, line: Line) -> None:
        restart = {name: line[name] for name in ("step", "reason", "seconds")}
        self._driver = self._driver | {"restarts": [*self._driver["restarts"], restart]}
        self._upload.request()

    def _step(self, line: Line) -> None:
        scalars = {name: line[name] for name in ("loss", "learning_rate", "images_per_second")}
        self._event_file.add(scalars, step=line["step"])
        if line["seconds"] >= self._next_point_seconds:
            self._next_point_seconds = line["seconds"] + _POINT_SECONDS
            self._steps = [*self._steps, line]
        if line["seconds"] >= self._next_upload_seconds:
            self._next_upload_seconds = line["seconds"] + _UPLOAD_SECONDS
            self._upload.request()

    def _epoch(self, line: Line) -> None:
        metrics = {name: value for name, value in line["validation"].items() if isinstance(value, float)}
        scalars = {f"validation/{name}": value for name, value in metrics.items()}
        self._event_file.add(scalars, step=line["step"])
        self._history = [*self._history, line]
        self._upload.request()

    def _write(self) -> None:
        file_system, path = open_filesystem(self._uri)
        for name, lines in ((HISTORY, self._history), (STEPS, self._steps), (DRIVERS, self.drivers)):
            overwrite(f"{self._uri}/{name}", "".join(json.dumps(line) + "\n" for line in lines).encode())
        # Not first: it would make a run's directory that is away.
        file_system.makedirs(f"{path}/{TENSORBOARD}", exist_ok=True)
        file_system.pipe_file(f"{path}/{TENSORBOARD}/{self._event_file.name}", self._event_file.content())


def _read_lines(uri: str, tell: Callable[[str], None]) -> list[Line]:
    """The lines that are there; one that a host wrote as it died costs itself and not the run."""
    file_system, path = open_filesystem(uri)
    try:
        content = file_system.cat_file(path)
    except FileNotFoundError:
        return []
    lines = []
    for text in content.splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            tell(f"{uri}: a line is damaged and left out")
    return lines

"""What a person sees of a run: a progress bar on a terminal, plain lines in a log."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm

from insitu.cluster.threads import core_ranges
from insitu.training.engines.base import Event

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 30
# What it makes of a run of 1000 steps fits a terminal of 80 columns.
_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class ProgressBar:
    """A listener that shows a run's events.

    On a terminal a bar counts the optimiser steps of the whole run, and shows the epoch, loss, last
    validation metric, images/s of all workers and the time left; elsewhere a line every 30 s has
    the same. Epochs, workers, waits, restarts and failed checkpoints leave a line on both.

    A stream that cannot be written, of a log on a full disk, costs lines and no training.

    Args:
        stream: a text stream, such as `sys.stderr`. A slow one is written to twice a second at most, and for each line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: _Bar | _Lines | None = None
        self._checkpoints_fail = False

    def __call__(self, event: Event) -> None:
        with suppress(OSError):
            self._show(event)

    def _show(self, event: Event) -> None:
        match event["event"]:
            case "start":
                self._start(event)
            case "worker":
                cores = core_ranges(event["cores"])
                self.say(f"worker {event['rank']} on {event['host']}: cores {cores}, {event['threads']} threads")
            case "step" if self._shown:
                self._shown.step(event)
            case "validation" if self._shown:
                self._shown.validating(event)
            case "epoch":
                self._epoch(event)
            case "checkpoint":
                self._checkpoint(event)
            case "waiting":
                self.say(event["reason"])
            case "restart":
                self.say(f"restart {event['attempt']} of {event['of']} at step {event['step']}: {event['reason']}")

    def say(self, line: str) -> None:
        """Leave a line, above the bar if there is one."""
        with suppress(OSError):
            tqdm.write(f"{line}\n", file=self._stream, end="")
            self._stream.flush()

    def close(self) -> None:
        """Take the bar away; the lines stay."""
        if self._shown:
            with suppress(OSError):
                self._shown.close()
            self._shown = None

    def _start(self, event: Event) -> None:
        self.close()
        epochs, steps, first = event["epochs"], event["steps_per_epoch"], event["first_step"]
        if first:
            self.say(f"resuming after step {first} of {epochs * steps}, in epoch {first // steps + 1} of {epochs}")
        else:
            self.say(f"training {epochs} epochs of {steps} steps, {event['global_batch']} images a step")
        if self._stream.isatty():
            self._shown = _Bar(self._stream, epochs=epochs, steps_per_epoch=steps, first_step=first)
        else:
            self._shown = _Lines(self.say, epochs=epochs, steps_per_epoch=steps)

    def _epoch(self, event: Event) -> None:
        if self._shown:
            self._shown.validated(event)
        metrics = {name: value for name, value in event["validation"].items() if isinstance(value, float)}
        self.say(
            f"epoch {event['epoch'] + 1}: loss {event['loss']:.4f}, "
            + ", ".join(f"validation {name} {value:.4f}" for name, value in metrics.items())
            + f", learning rate {event['learning_rate']:.3g}, {event['images_per_second']:.1f} images/s"
        )

    def _checkpoint(self, event: Event) -> None:
        failed = event["error"] is not None
        if failed:
            self.say(f"no checkpoint at step {event['step']}: {event['error']}")
        elif self._checkpoints_fail:
            self.say(f"checkpoint at step {event['step']}: they can be written again")
        self._checkpoints_fail = failed


class _Bar:
    """The bar of a gang, from its start to its end."""

    def __init__(self, stream: TextIO, *, epochs: int, steps_per_epoch: int, first_step: int) -> None:
        self._epochs = epochs
        self._stepping = False
        self._metric = ""
        self._bar = tqdm(
            desc=self._name(min(first_step // steps_per_epoch, epochs - 1)),
            total=epochs * steps_per_epoch,
            initial=first_step,
            file=stream,
            bar_format=_FORMAT,
            mininterval=_REFRESH_SECONDS,
            miniters=0,
            smoothing=0,  # the time left is from the mean speed, pauses for validation included
            dynamic_ncols=True,
            leave=False,
        )

    def step(self, event: Event) -> None:
        if not self._stepping:  # the clock starts here: the gang's start-up says nothing of its speed
            self._stepping = True
            self._bar.unpause()
            self._bar.initial = event["step"]
        self._bar.set_description_str(self._name(event["epoch"]), refresh=False)
        speed = f"{event['images_per_second']:.1f} img/s"
        self._bar.set_postfix_str(f"loss {event['loss']:.3f}, {self._metric}{speed}", refresh=False)
        self._bar.update(event["step"] - self._bar.n)

    def validating(self, event: Event) -> None:
        progress = f"{self._name(event['epoch'])}, validating {event['rows']}/{event['of']}"
        self._bar.set_description_str(progress, refresh=False)
        self._bar.update(0)

    def validated(self, event: Event) -> None:
        self._metric = f"{_headline(event['validation'])}, "
        self._bar.set_description_str(self._name(event["epoch"]), refresh=False)
        self._bar.update(event["step"] - self._bar.n)

    def close(self) -> None:
        self._bar.close()

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self._epochs}"


class _Lines:
    """A line of a gang every 30 s."""

    def __init__(self, say: Callable[[str], None], *, epochs: int, steps_per_epoch: int) -> None:
        self._say = say
        self._epochs = epochs
        self._steps = epochs * steps_per_epoch
        self._metric = ""
        self._first: Event | None = None
        self._next_seconds = 0.0

    def step(self, event: Event) -> None:
        self._first = self._first or event
        if event["seconds"] < self._next_seconds:
            return
        self._next_seconds = event["seconds"] + _LINE_SECONDS
        place = f"step {event['step']}/{self._steps} in epoch {event['epoch'] + 1}/{self._epochs}"
        rates = f"learning rate {event['learning_rate']:.3g}, {event['images_per_second']:.1f} images/s"
        self._say(f"{place}: loss {event['loss']:.4f}, {self._metric}{rates}, {self._left(event)} left")

    def validating(self, event: Event) -> None:
        """The epoch's own line comes when it is done."""

    def validated(self, event: Event) -> None:
        self._metric = f"{_headline(event['validation'])}, "

    def close(self) -> None:
        """The lines stay."""

    def _left(self, event: Event) -> str:
        """At the mean speed since the gang's first step, pauses for validation included."""
        assert self._first
        steps, seconds = event["step"] - self._first["step"], event["seconds"] - self._first["seconds"]
        return tqdm.format_interval(seconds / steps * (self._steps - event["step"])) if steps else "?"


def _headline(validation: dict[str, Any]) -> str:
    """The one metric that the bar has room for."""
    name = "accuracy" if validation["auc_macro"] is None else "auc_macro"
    return f"{name} {validation[name]:.3f}"

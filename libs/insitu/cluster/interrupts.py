"""Ctrl-C and SIGTERM that wait for a safe moment."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

STOP_SECONDS = 60
"""How long something that does not move holds up a job that was told to stop."""
LONGEST_STOP_SECONDS = 600
"""And how long what moves, such as a validation, or writes a checkpoint."""


class DeferredInterrupts(AbstractContextManager["DeferredInterrupts"]):
    """Within it, what the first signal's handler raises is kept for `deliver` or the end; the second raises at once.

    PySpark's own handler of Ctrl-C, which would cancel the running jobs, is left out. Outside of the main thread,
    where Python handles no signals, nothing is deferred.

    Args:
        tell: called by the first `deliver` after the first signal: it may print through Py4J, which a signal's handler
            must not, in whose thread another call of Py4J may be under way.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._handlers: dict[int, Any] = {}
        self._kept: BaseException | None = None
        self._kept_since = 0.0
        self._told = False

    def __enter__(self) -> "DeferredInterrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(signal.getsignal(number)):
                    self._handlers[number] = signal.signal(number, self._keep)
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if not isinstance(error, KeyboardInterrupt | SystemExit):
            self.deliver()

    @property
    def waiting(self) -> bool:
        """Whether something is kept."""
        return self._kept is not None

    def deliver(self, *, after_seconds: float = 0) -> None:
        """Raise what is kept, if anything is, and has been for so long; `math.inf` only tells."""
        if self._kept and not self._told:
            self._told = True
            self._tell()
        if self._kept and time.monotonic() - self._kept_since >= after_seconds:
            kept, self._kept = self._kept, None
            raise kept

    def _keep(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[number]
        if "pyspark" in getattr(handler, "__module__", ""):
            handler = signal.default_int_handler
        try:
            handler(number, frame)
        except BaseException as error:
            if self._kept:
                raise
            self._kept, self._kept_since = error, time.monotonic()

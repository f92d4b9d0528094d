"""A TensorBoard event file of scalars."""

import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """One process's scalars of a run, through TensorBoard's own record writer.

    `tf.summary` writes the same file, but cannot write the mark by which TensorBoard drops the
    steps that a restarted run repeats. TensorBoard's `EventFileWriter` can, but loads TensorFlow.

    It is kept in memory, some megabytes a day: a full temporary directory would end the training.

    Attributes:
        name: of the file, as TensorBoard knows its own.
    """

    def __init__(self) -> None:
        self.name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._content = BytesIO()
        self._writer = RecordWriter(self._content)
        self._add(file_version="brain.Event:2")

    def restart(self, *, after_step: int) -> None:
        """Make TensorBoard forget, in all event files of the directory, what comes after a step."""
        self._add(step=after_step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, scalars: Mapping[str, float], *, step: int) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(step=step, summary=Summary(value=values))

    def content(self) -> bytes:
        """All so far; while another thread adds to it, the last record may be cut, as in a file that grows."""
        return self._content.getvalue()

    def _add(self, **fields: Any) -> None:
        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

"""A TensorBoard event file of scalars."""

import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """One process's scalars of a run, through TensorBoard's own writer.

    `tf.summary` writes the same file, but cannot write the mark by which TensorBoard drops the
    steps that a restarted run repeats.

    Args:
        directory: a local one; it is made.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(directory))

    def restart(self, *, after_step: int) -> None:
        """Make TensorBoard forget, in all event files of the directory, what comes after a step."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        mark = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=after_step + 1, session_log=mark))

    def add(self, scalars: Mapping[str, float], *, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

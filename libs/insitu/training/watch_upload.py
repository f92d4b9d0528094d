"""Uploads in the background, to a file system that may be slow or away for a while."""

from collections.abc import Callable
from threading import Thread

_CLOSE_SECONDS = 30


class PatientUpload:
    """Runs an upload whenever it is asked for, one at a time, and again after it failed.

    It runs in a thread of its own, a daemon: a client may wait for minutes for a server that is
    away (hdfs-native does), and neither the run's events nor the end of the process wait with it.

    Args:
        upload: makes the destination what it should be now; its exceptions are told, none ends the run.
        destination: what messages call the place.
        tell: takes a line for the user; called in `request`, `poll` and `close`, never in the thread.
    """

    def __init__(self, upload: Callable[[], None], *, destination: str, tell: Callable[[str], None]) -> None:
        self._upload = upload
        self._destination = destination
        self._tell = tell
        self._thread: Thread | None = None
        self._error: Exception | None = None
        self._wanted = False
        self._failing = False

    def request(self) -> None:
        """Ask for an upload of what is there now."""
        self._wanted = True
        self.poll()

    def poll(self) -> None:
        """Tell what became of the last upload, and start the one that is due; call it often."""
        if self._settled() and self._wanted:
            self._wanted = False
            self._thread = Thread(target=self._run, name="insitu-upload", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Upload for the last time, and wait for it, but no longer than a minute."""
        self._wait()
        self.request()
        self._wait()
        if not self._settled() or self._wanted:
            self._tell(f"{self._destination} misses the end of the run: it could not be written")

    def _run(self) -> None:
        try:
            self._upload()
            self._error = None
        except Exception as error:  # whatever kind the file system's client has; `_settled` tells it
            self._error = error

    def _wait(self) -> None:
        if self._thread:
            self._thread.join(_CLOSE_SECONDS)

    def _settled(self) -> bool:
        """Whether no upload runs; what became of the last one is told, and a failed one is wanted again."""
        if self._thread is None:
            return True
        if self._thread.is_alive():
            return False
        self._thread = None
        if self._error:
            self._wanted = True
            if not self._failing:
                kind = type(self._error).__name__
                self._tell(f"{self._destination} cannot be written ({kind}: {self._error}); trying on")
        elif self._failing:
            self._tell(f"{self._destination} is written again")
        self._failing = self._error is not None
        return True

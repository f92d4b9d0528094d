"""A batch's tables appear together, once: written under a hidden name, then renamed, the scores last."""

from collections.abc import Iterator
from contextlib import contextmanager

from insitu.cluster.filesystem import open_filesystem

SCORES, QUARANTINE, MONITORING = "scores", "quarantine", "monitoring"
_TABLES = (QUARANTINE, MONITORING, SCORES)


class Outbox:
    """The tables `scores`, `quarantine` and `monitoring` in a folder, each with a folder `batch=N` a batch.

    A batch is done when its scores are there.

    Args:
        uri: of the folder, which one job at a time may write to.
        staging: a folder on the same file system whose content is worth nothing when the job has ended.
    """

    def __init__(self, uri: str, *, staging: str) -> None:
        self._uri = uri
        self._staging = staging

    def is_done(self, number: int) -> bool:
        file_system, path = open_filesystem(self._place(SCORES, number))
        return file_system.exists(path)

    def any_done(self) -> bool:
        file_system, path = open_filesystem(f"{self._uri}/{SCORES}")
        return file_system.exists(path)

    @contextmanager
    def publishing(self, number: int) -> Iterator[dict[str, str]]:
        """A batch's tables to write, by name; where the block succeeds they appear.

        What an earlier try has left is removed first.
        """
        file_system, staging = open_filesystem(self._staging)
        if file_system.exists(staging):
            file_system.rm(staging, recursive=True)
        yield {name: f"{self._staging}/{name}" for name in _TABLES}
        for name in _TABLES:
            _, place = open_filesystem(self._place(name, number))
            if file_system.exists(place):
                file_system.rm(place, recursive=True)
            file_system.makedirs(place.rpartition("/")[0], exist_ok=True)
            file_system.mv(f"{staging}/{name}", place, recursive=True)

    def _place(self, name: str, number: int) -> str:
        return f"{self._uri}/{name}/batch={number:08d}"

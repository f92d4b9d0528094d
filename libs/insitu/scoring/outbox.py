"""A batch's tables appear together, once: written under a hidden name, then renamed, the scores last."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from insitu.cluster.filesystem import open_filesystem, rename
from insitu.errors import UserError

SCORES, QUARANTINE, MONITORING, TO_LABEL = "scores", "quarantine", "monitoring", "to_label"
RESULTS, RUNS = "results", "runs"
_TABLES = (QUARANTINE, MONITORING, TO_LABEL, SCORES)


class Outbox:
    """The tables `scores`, `quarantine`, `monitoring` and `to_label` in a folder, each with a folder `batch=N` a batch.

    A batch is done when its scores are there.

    Args:
        uri: of the folder, which one job at a time may write to.
        staging: a folder on the same file system that nobody else uses.
        before_publishing: called when all tables of a batch are written; what it raises keeps them from appearing.
    """

    def __init__(self, uri: str, *, staging: str, before_publishing: Callable[[], None]) -> None:
        self._uri = uri
        self._staging = staging
        self._before_publishing = before_publishing

    def is_done(self, number: int) -> bool:
        file_system, path = open_filesystem(self._place(SCORES, number))
        return file_system.exists(path)

    def any_done(self) -> bool:
        """Whether any batch is.

        Raises:
            UserError: the scores are gone, and other tables of several batches are not.
        """
        file_system, path = open_filesystem(f"{self._uri}/{SCORES}")
        if file_system.exists(path):
            return True
        for name in _TABLES:  # of the first batch a killed run may have left some
            later = file_system.glob(f"{open_filesystem(f'{self._uri}/{name}')[1]}/batch=*[1-9]*")
            if later:
                problem = f"{self._uri} has no {SCORES} any more, and still has {name}"
                raise UserError("--output", problem, "remove the whole folder to score all anew, or name a new one")
        return False

    @contextmanager
    def publishing(self, number: int) -> Iterator[dict[str, str]]:
        """A batch's tables to write, by name; where the block succeeds, those that it wrote appear, but for `results`.

        What an earlier try of the batch has left is removed first.
        """
        file_system, staging = open_filesystem(self._staging)
        places = {name: open_filesystem(self._place(name, number))[1] for name in _TABLES}
        for left in (staging, *places.values()):
            if file_system.exists(left):
                file_system.rm(left, recursive=True)
        yield {name: f"{self._staging}/{name}" for name in (*_TABLES, RESULTS)}
        for name, place in places.items():
            if not file_system.exists(f"{staging}/{name}"):
                continue
            self._before_publishing()
            if file_system.exists(place):  # a folder that is moved onto another one ends in it
                raise RuntimeError(f"{place} was published meanwhile, by another job")
            file_system.makedirs(place.rpartition("/")[0], exist_ok=True)
            rename(file_system, f"{staging}/{name}", place)
        file_system.rm(staging, recursive=True)

    def _place(self, name: str, number: int) -> str:
        return f"{self._uri}/{name}/batch={number:08d}"

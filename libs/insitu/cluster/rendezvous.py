"""How the workers of a gang learn each other's addresses: through a shared directory.

Spark's own `BarrierTaskContext.allGather` leaves a timer thread in the JVM that is no daemon; in
local mode the application then never ends.
"""

import time

from insitu.cluster.filesystem import open_filesystem, rename

_POLL_SECONDS = 0.2


class Missing(TimeoutError):
    """Some worker gave no value in time.

    Attributes:
        others: whether any but this one did.
    """

    def __init__(self, message: str, *, others: bool) -> None:
        super().__init__(message)
        self.others = others


def exchange(uri: str, value: str, *, rank: int, size: int, timeout_seconds: float) -> list[str]:
    """Give a value to all workers and get everyone's.

    Args:
        uri: a directory of this gang alone.
        value: this worker's.
        rank, size: the worker's place, and the number of workers.
        timeout_seconds: how long to wait for the last one.

    Returns:
        the values by rank.

    Raises:
        Missing: some worker gave none within `timeout_seconds`.
    """
    file_system, directory = open_filesystem(uri)
    file_system.makedirs(directory, exist_ok=True)
    file_system.pipe_file(f"{directory}/.{rank}", value.encode())
    rename(file_system, f"{directory}/.{rank}", f"{directory}/{rank}")
    deadline = time.monotonic() + timeout_seconds
    missing = set(range(size))
    while missing:
        missing = {other for other in missing if not file_system.exists(f"{directory}/{other}")}
        if missing and time.monotonic() > deadline:
            problem = f"workers {sorted(missing)} of {size} did not start within {timeout_seconds:g} s"
            raise Missing(problem, others=len(missing) < size - 1)
        time.sleep(_POLL_SECONDS if missing else 0)
    return [file_system.cat_file(f"{directory}/{other}").decode() for other in range(size)]

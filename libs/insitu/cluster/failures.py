"""What a failure of Spark's tasks or executors tells the driver."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from insitu.cluster.child import signal_cause
from insitu.errors import UserError

_OUT_OF_HEAP = 52
"""`SparkExitCode.OOM`, with which an executor ends itself after an OutOfMemoryError."""


@contextmanager
def workers_user_errors() -> Iterator[None]:
    """Around a Spark action: a `UserError` that a Python worker raised is raised here as itself."""
    try:
        yield
    except Exception as error:
        found = re.search(r"^insitu\.errors\.UserError: (.*)$", str(error), re.MULTILINE)
        if found is None:
            raise
        raise UserError.from_message(found[1]) from None


def exit_cause(reason: str) -> str:
    """The likely cause behind the exit code in Spark's words on a lost executor; "" where no code tells one."""
    found = re.search(r"(?:exited with code|exit code|exit status:) (\d+)", reason, re.IGNORECASE)
    code = int(found[1]) if found else 0
    if code == _OUT_OF_HEAP:
        return "out of heap: raise spark.executor.memory"
    if code - 128 not in set(signal.Signals):
        return ""
    return f"{signal.Signals(code - 128).name}: {signal_cause(code - 128)}"

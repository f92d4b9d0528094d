"""What every job does the same way: exit codes, the error line, the summary line."""

import json
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from insitu.errors import UserError


def run_job(name: str, main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run a job's `main` and end the process as the job contract says.

    The last line of stdout is the summary that `main` returns, as one JSON object. Exit 0: done;
    2: a `UserError`, told in one line; 1: a failure, the worker's own traceback first; 130 and
    143: Ctrl-C and SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        summary = main()
    except UserError as error:
        sys.exit(_complain(name, str(error), code=2))
    except KeyboardInterrupt:
        sys.exit(_complain(name, "interrupted", code=130))
    except Exception as error:  # the top of a process: everything ends here, with its traceback
        sys.stderr.write(_worker_traceback(error) or traceback.format_exc())
        sys.exit(_complain(name, f"failed: {type(error).__name__}", code=1))
    print(json.dumps(summary), flush=True)
    sys.exit(0)


def _complain(name: str, message: str, *, code: int) -> int:
    print(f"{name}: {message}", file=sys.stderr, flush=True)
    return code


def _terminate(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


def _worker_traceback(error: Exception) -> str:
    """The Python traceback inside a Spark failure, or "" where there is none."""
    text = str(error)
    start = text.find("Traceback (most recent call last)")
    if start < 0 or not type(error).__module__.startswith(("py4j", "pyspark")):
        return ""
    end = text.find("\n\tat org.apache.spark", start)
    return text[start : end if end > 0 else None].rstrip() + "\n"

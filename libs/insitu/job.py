"""What every job does the same way: exit codes, the error line, the summary line."""

import io
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from insitu.errors import UserError, WorkerError

_SAME_SIGNAL_SECONDS = 3.0
_FREE_CODES = range(4, 126)


def run_job(name: str, main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run a job's `main` and end the process as the job contract says.

    The last line of stdout is the summary that `main` returns, as one JSON object. Exit 0: done, or what `Alarm`
    says; 3: what the summary says is done, but not all that was asked for, and its `not_done` is told in one line;
    2: a `UserError`, told in one line; 1: a failure, the worker's own traceback first; 130, 143 and 129: Ctrl-C,
    SIGTERM and SIGHUP.
    """
    for number in _signals():
        signal.signal(number, _end)
    logging.getLogger().addFilter(_is_not_py4js)
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        sys.stderr = SparkSubmitStderr()
        _take_over_signals()
    code = 0
    try:
        summary = main()
    except Alarm as alarm:
        summary, code = alarm.summary, alarm.code
    except UserError as error:
        sys.exit(_complain(name, str(error), code=2))
    except KeyboardInterrupt:
        sys.exit(_complain(name, "interrupted", code=130))
    except Terminated as end:
        sys.exit(_complain(name, "terminated", code=end.code))
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_complain(name, "failed: a worker's error, above", code=1))
    except Exception as error:  # the top of a process: everything ends here, with its traceback
        if "SparkContext was shut down" in str(error):
            if _last_signal:
                sys.exit(_complain(name, "terminated: Spark was shut down", code=143))
            cause = "by its master or its resource manager, or because its JVM was ended"
            sys.exit(_complain(name, f"failed: Spark was shut down, and no signal came: {cause}", code=1))
        sys.stderr.write(_spark_failure(error) or traceback.format_exc())
        sys.exit(_complain(name, f"failed: {type(error).__name__}", code=1))
    print(json.dumps(summary), flush=True)
    sys.exit(_complain(name, summary["not_done"], code=3) if "not_done" in summary else code)


def attempt(action: Callable[[], None], otherwise: str) -> str | None:
    """Do what may fail and costs nothing of what is published.

    Returns:
        None; where it failed, for the summary's `not_done`, `otherwise` and the error. The traceback is on stderr.
    """
    try:
        action()
    except Exception as error:
        traceback.print_exc()
        return f"{otherwise} ({' '.join(f'{type(error).__name__}: {error}'.split())}; the traceback is in the log)"
    return None


class Alarm(Exception):
    """The job is done, and somebody wants to know by its exit code what its summary tells."""

    def __init__(self, summary: dict[str, Any], *, code: int) -> None:
        super().__init__(summary)
        self.summary = summary
        self.code = code


def check_alarm_code(setting: str, code: int) -> None:
    """Raise `UserError` where an exit code for `Alarm` means something else already; 0 is no alarm."""
    if code and code not in _FREE_CODES:
        problem = f"{code}, expected {_FREE_CODES.start} to {_FREE_CODES.stop - 1}"
        raise UserError(setting, problem, "0 to 3 and from 126 on mean something else")


class SparkSubmitStderr(io.TextIOBase):
    """The stderr of spark-submit.

    spark-submit runs a Python program with its stderr joined to its stdout (`redirectErrorStream`
    in org.apache.spark.deploy.PythonRunner), so what belongs on stderr is printed by the JVM.
    """

    def __init__(self) -> None:
        from pyspark import SparkContext

        SparkContext._ensure_initialized()
        assert SparkContext._jvm is not None
        self._stream = SparkContext._jvm.System.err
        try:
            self._descriptor = os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:  # a socket, as under systemd, or a pipe without a reader: no terminal
            self._descriptor = os.open(os.devnull, os.O_WRONLY)

    encoding = "utf-8"

    def fileno(self) -> int:
        """The JVM's own stderr; asked for a terminal and its size, never written to."""
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        from py4j.protocol import Py4JError

        try:
            self._stream.print(text)
        except Py4JError:  # Ctrl-C has ended the JVM already
            sys.stdout.write(text)
        return len(text)


def _is_not_py4js(record: logging.LogRecord) -> bool:
    """Py4J tells the root logger, with a stack, of every interrupted call; the interrupt itself follows anyway."""
    return not record.pathname.endswith(("clientserver.py", "java_gateway.py"))


def _complain(name: str, message: str, *, code: int) -> int:
    print(f"{name}: {message}", file=sys.stderr, flush=True)
    return code


class Terminated(SystemExit):
    """SIGTERM or SIGHUP came; what catches Ctrl-C to clean up should catch this too."""

    code: int


def _signals() -> list[signal.Signals]:
    """The signals that end a job in order; not a SIGHUP that nohup has switched off."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


_last_signal = 0.0


def _end(signum: int, frame: object) -> None:
    """Raise in the main thread; spark-submit may bring the same signal twice, at once."""
    global _last_signal
    now, before = time.monotonic(), _last_signal
    _last_signal = now
    if now - before < _SAME_SIGNAL_SECONDS:
        return
    raise KeyboardInterrupt if signum == signal.SIGINT else Terminated(128 + signum)


class _ForwardedSignal:
    """Hands a signal that spark-submit's JVM got to this process, which ends in order; the JVM follows it.

    By itself the JVM would end at once, and Spark's workers with it.
    """

    def handle(self, received: Any) -> None:
        os.kill(os.getpid(), received.getNumber())

    class Java:
        implements: ClassVar = ["sun.misc.SignalHandler"]


def _take_over_signals() -> None:
    """Have the JVM of spark-submit pass its signals on to this process."""
    from pyspark import SparkContext
    from pyspark.java_gateway import ensure_callback_server_started

    SparkContext._ensure_initialized()
    jvm = SparkContext._jvm
    assert jvm is not None
    ensure_callback_server_started(SparkContext._gateway)
    for number in _signals():
        jvm.sun.misc.Signal.handle(jvm.sun.misc.Signal(number.name.removeprefix("SIG")), _ForwardedSignal())


def _spark_failure(error: Exception) -> str:
    """A Spark failure without Java's stack, the worker's own traceback, rank and host first; "" for other errors."""
    if not type(error).__module__.startswith(("py4j", "pyspark")):
        return ""
    text = str(error)
    start = text.find("Traceback (most recent call last)")
    if start < 0:
        return "".join(f"{line}\n" for line in text.splitlines() if line.strip() and not line.startswith("\t"))
    own, _, _ = text[start:].partition("\n\tat ")
    worker = re.search(r"WorkerFailure: (rank \d+ on \S+)", own)
    if worker is None:
        return f"{own.rstrip()}\n"
    return f"{worker[1]}:\n{own.partition('The above exception was the direct cause')[0].rstrip()}\n"

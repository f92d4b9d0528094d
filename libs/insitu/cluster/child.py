"""A process of its own for native work, whose death can be told from the outside.

Spark's Python worker only notices that it has died itself. Forked once more, it outlives TensorFlow
and can say how TensorFlow ended.
"""

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from insitu.errors import UserError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Finished(BaseException):
    """The work is done, or is to end: raised in the child, it ends the process and runs no destructor.

    That of a tf.data iterator waits, holding the interpreter lock, for its threads, which may wait for that lock.
    """


class ChildFailed(RuntimeError):
    """The child raised; the message is its traceback.

    Attributes:
        kind: the exception's class.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return self.args[1]


class ChildDied(RuntimeError):
    """The child ended without a word; the message is its exit code and the likely cause."""


def run_in_child(work: Callable[[], None]) -> None:
    """Fork, run `work` in the child until it returns or raises `Finished`; the child dies with this process.

    Raises:
        UserError: as `work` raised it.
        ChildFailed, ChildDied: it failed otherwise.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    kills = _out_of_memory_kills()
    child = fork.Process(target=_child, args=(work, theirs, os.getpid()))
    child.start()
    theirs.close()
    try:
        error = ours.recv()
    except EOFError:
        child.join()
        assert child.exitcode is not None
        raise ChildDied(describe_exit(child.exitcode, out_of_memory=_out_of_memory_kills() > kills)) from None
    child.join()
    if error is not None:
        raise error


def describe_exit(exit_code: int, *, out_of_memory: bool) -> str:
    """An exit code and its likely cause, in words.

    Args:
        exit_code: as `multiprocessing.Process.exitcode`: negative for a signal.
        out_of_memory: whether the kernel killed a process of this host for memory meanwhile.
    """
    if exit_code >= 0:
        return f"exit code {exit_code}: native code ended the process"
    name, cause = signal.Signals(-exit_code).name, signal_cause(-exit_code)
    if name == "SIGKILL":
        by_kernel = "the kernel was out of memory: fewer workers a host, a smaller global batch or data.cache_mib"
        by_others = "someone or a resource manager killed it; the kernel was not out of memory"
        cause = by_kernel if out_of_memory else by_others
    return f"exit code {128 - exit_code} ({name}): {cause}"


def signal_cause(number: int) -> str:
    """Why a process ends by a signal, in words."""
    causes = {
        "SIGKILL": "killed by someone, a resource manager, or the kernel for lack of memory",
        "SIGTERM": "someone or a resource manager ended it",
        "SIGSEGV": "a crash in native code",
        "SIGBUS": "a crash in native code, or a full /dev/shm or disk behind mapped memory",
        "SIGILL": "the CPU lacks an instruction that a library was built with",
        "SIGABRT": "native code gave up, often for lack of memory; its last words are in the executor's stderr",
    }
    return causes.get(signal.Signals(number).name, "unknown")


def _child(work: Callable[[], None], pipe: Connection, parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    try:
        work()
        _end(pipe, None)
    except Finished:
        _end(pipe, None)
    except UserError as mistake:
        _end(pipe, mistake)
    except Exception as failure:
        _end(pipe, ChildFailed(type(failure).__name__, traceback.format_exc()))


def _end(pipe: Connection, error: Exception | None) -> NoReturn:
    """While an exception is handled, its frames keep alive what they hold."""
    pipe.send(error)
    os._exit(0)


def _out_of_memory_kills() -> int:
    """The kernel's count for the whole host since it started (Linux 4.13; a container sees its host's)."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counters.get("oom_kill", 0))

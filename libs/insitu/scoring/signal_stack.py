"""The stack that a thread's signals are handled on, past a library that changes it."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of signal.h on Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Around what makes OpenVINO cores of its own, as NNCF does: gives the thread its own stack for signals back.

    Each core sets one, and takes it away when it goes, in whatever order; what stays set is then no memory any more,
    and the next Ctrl-C ends the process by SIGSEGV (sigstack_manager.cpp of OpenVINO; see `insitu.scoring.ir.core`).
    """
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)

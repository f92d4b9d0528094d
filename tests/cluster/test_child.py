"""A child process that works, fails or dies."""

import os
import signal
import time

import psutil
import pytest

from insitu.cluster.child import ChildDied, ChildFailed, Finished, describe_exit, run_in_child
from insitu.errors import UserError


def test_work_is_done_in_another_process(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "pid")

    def work() -> None:
        with open(path, "w") as out:
            out.write(str(os.getpid()))

    run_in_child(work)
    with open(path) as found:
        assert int(found.read()) != os.getpid()


def test_finished_child_does_not_wait_for_what_its_frames_hold() -> None:
    class Endless:
        def __del__(self) -> None:
            time.sleep(3600)

    def work() -> None:
        held = Endless()
        raise Finished(id(held))

    run_in_child(work)


def test_error_of_the_user_comes_back_as_itself() -> None:
    def work() -> None:
        raise UserError("data.size", "too small", "raise it")

    with pytest.raises(UserError, match=r"^data\.size: too small; raise it$"):
        run_in_child(work)


def test_other_error_comes_back_with_its_traceback() -> None:
    def work() -> None:
        raise KeyError("missing")

    with pytest.raises(ChildFailed, match=r"(?s)Traceback.*in work.*KeyError: 'missing'") as caught:
        run_in_child(work)
    assert caught.value.kind == "KeyError"


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGKILL, "exit code 137 (SIGKILL): someone"), (signal.SIGTERM, "exit code 143 (SIGTERM): someone")],
)
def test_death_is_told_with_its_signal(number: signal.Signals, told: str) -> None:
    with pytest.raises(ChildDied) as caught:
        run_in_child(lambda: os.kill(os.getpid(), number))
    assert str(caught.value).startswith(told)


def test_native_exit_is_told_with_its_code() -> None:
    with pytest.raises(ChildDied, match=r"^exit code 3: "):
        run_in_child(lambda: os._exit(3))


def test_kernel_out_of_memory_is_named() -> None:
    assert "the kernel was out of memory" in describe_exit(-signal.SIGKILL, out_of_memory=True)
    assert "was not out of memory" in describe_exit(-signal.SIGKILL, out_of_memory=False)


def test_child_dies_with_its_parent() -> None:
    parent = os.fork()
    if parent == 0:
        run_in_child(lambda: time.sleep(60))
        os._exit(0)
    deadline = time.monotonic() + 10
    while not psutil.Process(parent).children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (child,) = psutil.Process(parent).children()
    time.sleep(0.5)  # for the child to ask the kernel for it
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive

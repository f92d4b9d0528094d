"""Spark's words on lost executors, and what the project adds to them."""

import pytest

from insitu.cluster.failures import exit_cause


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("Command exited with code 137", "SIGKILL: killed by someone, a resource manager, or the kernel for lack of "),
        ("Container marked as failed: c_1 on host: h. Exit status: 143. Diagnostics: ", "SIGTERM: someone or "),
        ("The executor with id 1 exited with exit code 139(unexpected).", "SIGSEGV: a crash in native code"),
        ("Command exited with code 52", "out of heap: raise spark.executor.memory"),
    ],
)
def test_exit_code_is_told_with_its_likely_cause(reason: str, cause: str) -> None:
    assert exit_cause(reason).startswith(cause)


@pytest.mark.parametrize("reason", ["Executor heartbeat timed out after 130000 ms", "Command exited with code 1"])
def test_nothing_is_made_up(reason: str) -> None:
    assert exit_cause(reason) == ""

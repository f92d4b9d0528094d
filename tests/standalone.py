"""A real standalone Spark cluster on this machine: a master and two one-core workers, in processes of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from maven import SPARK_CLASS

WORKERS = 2
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
_DEPLOY = "org.apache.spark.deploy"


@contextlib.contextmanager
def standalone_cluster(work_dir: Path) -> Iterator[str]:
    """Start the cluster, yield its `spark://` URL, and leave no process behind.

    Args:
        work_dir: takes the executors' directories and the daemons' output.
    """
    port, web_port = free_port(), free_port()
    url = f"spark://127.0.0.1:{port}"
    with contextlib.ExitStack() as daemons:
        address = ["--host", "127.0.0.1"]
        ports = ["--port", str(port), "--webui-port", str(web_port)]
        daemons.enter_context(daemon(work_dir, f"{_DEPLOY}.master.Master", *address, *ports))
        for _ in range(WORKERS):
            size = ["--cores", "1", "--memory", "4g", "--webui-port", "0", "--work-dir", str(work_dir)]
            daemons.enter_context(daemon(work_dir, f"{_DEPLOY}.worker.Worker", *address, *size, url))
        _wait_for_workers(f"http://127.0.0.1:{web_port}/json/", work_dir)
        yield url


@contextlib.contextmanager
def daemon(
    work_dir: Path, name: str, *args: str, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen]:
    """Run a Java class with Spark's jars, until the end of the block.

    Args:
        work_dir: takes its output, as NAME.out.
        name: of the class.
        args: its own.
        environment: in addition to this process's.
    """
    ours = {"SPARK_LOCAL_IP": "127.0.0.1", "INSITU_LOG_DIR": str(work_dir)}
    with (work_dir / f"{name.rpartition('.')[2]}.out").open("ab") as output:
        process = subprocess.Popen(
            [str(SPARK_CLASS), name, *args],
            env={**os.environ, **ours, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen) -> None:
    """End a process that leads its own group, politely, and then whatever is left of the group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_for_workers(status_url: str, work_dir: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(status_url, timeout=5) as answer:
            if json.load(answer)["aliveworkers"] == WORKERS:
                return
        time.sleep(0.3)
    raise TimeoutError(f"no {WORKERS} workers in {START_TIMEOUT_S} s: see *.out and insitu.log in {work_dir}")

"""A real standalone Spark cluster on this machine: a master and two one-core workers, in processes of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyspark

WORKERS = 2
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15


@contextlib.contextmanager
def standalone_cluster(work_dir: Path) -> Iterator[str]:
    """Start the cluster, yield its `spark://` URL, and leave no process behind.

    Args:
        work_dir: takes the executors' directories and the daemons' output.
    """
    port, web_port = _free_port(), _free_port()
    url = f"spark://127.0.0.1:{port}"
    with contextlib.ExitStack() as daemons:
        address = ["--host", "127.0.0.1"]
        ports = ["--port", str(port), "--webui-port", str(web_port)]
        daemons.enter_context(_daemon(work_dir, "master.Master", *address, *ports))
        for _ in range(WORKERS):
            size = ["--cores", "1", "--memory", "4g", "--webui-port", "0", "--work-dir", str(work_dir)]
            daemons.enter_context(_daemon(work_dir, "worker.Worker", *address, *size, url))
        _wait_for_workers(f"http://127.0.0.1:{web_port}/json/", work_dir)
        yield url


@contextlib.contextmanager
def _daemon(work_dir: Path, name: str, *args: str) -> Iterator[None]:
    spark_class = Path(pyspark.__file__).parent / "bin/spark-class"
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "INSITU_LOG_DIR": str(work_dir)}
    with (work_dir / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(
            [str(spark_class), f"org.apache.spark.deploy.{name}", *args],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
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


def _free_port() -> int:
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

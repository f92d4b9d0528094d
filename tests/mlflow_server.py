"""A real MLflow server on this machine, of the environment that set-up makes for it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from standalone import stop_group

MLFLOW = Path(sys.prefix) / "mlflow/bin/mlflow"
START_TIMEOUT_S = 240


class MlflowServer:
    """Keeps its runs in SQLite and its artifacts in a folder, so that it can be started again.

    Attributes:
        uri: where it answers.
    """

    def __init__(self, directory: Path) -> None:
        assert MLFLOW.exists(), f"{MLFLOW} is missing; run make setup-dev"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        stores = ["--backend-store-uri", f"sqlite:///{self._directory}/runs.db"]
        stores += ["--artifacts-destination", f"{self._directory}/artifacts"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1", *stores],
                env=environment | quiet,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < end, (self._directory / "server.log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process:
            stop_group(self._process)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False


@contextlib.contextmanager
def mlflow_server(directory: Path) -> Iterator[MlflowServer]:
    """Start a server, and leave no process behind."""
    server = MlflowServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()

"""What the tests share: a real Spark session, real spark-submit runs and a real standalone cluster."""

import json
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from pyspark import SparkContext
from pyspark.sql import SparkSession

from standalone import standalone_cluster, stop_group

ROOT = Path(__file__).parent.parent
SEED = 20240229
_CRASH_LINES = 60
_LONGEST = (
    "training/test_kills.py",
    "training/test_engines.py",
    "scoring/test_batch_kills.py",
    "jobs/test_train_cnn.py",
    "jobs/test_score_batch.py",
    "test_production_loop.py",
    "scoring/test_quantize.py",
    "models/test_normalization.py",
    "bigdl/test_faults.py",
    "training/test_output_trouble.py",
)

# Before the first session: the driver's and the workers' Python programs find their tools in this environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["PYTHONPATH"] = str(ROOT / "libs")
# A test's Java lives for seconds: its second compiler would take a third of them. The first one's frames are larger,
# and the lineage of MLlib's own ALS, which ours is compared with, fills a stack of 1 MB with them.
os.environ["SPARK_SUBMIT_OPTS"] = "-XX:TieredStopAtLevel=1 -Xss4m"
# MKL's sums otherwise depend on where Java places its arrays: no two BigDL runs under mklblas are then equal.
os.environ["MKL_CBWR"] = "AVX2,STRICT"
settings.register_profile("the same examples in every run", derandomize=True, deadline=None)
settings.load_profile("the same examples in every run")


def pytest_report_header() -> str:
    return f"seed: {SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first: begun last, one would be run while the other process has nothing left to do."""
    places = {ROOT / "tests" / module: place for place, module in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a JVM that crashed says of it."""
    for log in ROOT.glob("hs_err_pid*.log"):
        terminalreporter.write_line("\n".join([str(log), *log.read_text().splitlines()[:_CRASH_LINES]]))


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed that every test starts from."""
    random.seed(SEED)
    np.random.seed(SEED)
    return SEED


@pytest.fixture(autouse=True)
def living_jvm() -> Iterator[None]:
    """Tells in which test Spark's JVM ended; those after it can only say that nobody answers."""
    yield
    gateway: Any = SparkContext._gateway
    if gateway and gateway.proc.poll() is not None:
        pytest.fail(f"Spark's JVM has ended with exit code {gateway.proc.returncode}")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local session on two cores, made as jobs and notebooks make theirs."""
    from insitu.cluster.session import spark_session

    warehouse = tmp_path_factory.mktemp("warehouse")
    settings = {"spark.ui.enabled": "false", "spark.sql.warehouse.dir": warehouse, "spark.sql.shuffle.partitions": 4}
    flags = " ".join(f"--conf {key}={value}" for key, value in settings.items())
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--master local[2] {flags} pyspark-shell"
    session = spark_session("tests")
    yield session
    session.stop()


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A finished spark-submit run; Spark's PythonRunner passes what the job's Python wrote to stderr on to stdout."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout."""
        assert self.returncode == 0, self.stderr
        return json.loads(self.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def submit() -> Callable[..., Submitted]:
    """Run `spark-submit JOB ARGS…` from the repository root, as a user would; JOB is a path from there."""
    return spark_submit


def spark_submit(
    job: str | Path, *args: object, master: str = "local[2]", timeout_s: float = 300, conf: Sequence[str] = ()
) -> Submitted:
    """Run a job to its end; whatever it started is gone afterwards, also when the time is up."""
    flags = [flag for setting in ("spark.ui.enabled=false", *conf) for flag in ("--conf", setting)]
    command = ["spark-submit", "--master", master, *flags, str(job), *map(str, args)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_")}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"SPARK_LOCAL_IP": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    finally:
        stop_group(process)
    return Submitted(returncode=process.returncode, stdout=stdout, stderr=stderr)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run `JOB ARGS…` from the repository root in this process: returns the job's summary, raises what it raises."""

    def run(job: str, *args: object) -> dict[str, Any]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [job, *map(str, args)])
        return runpy.run_path(job)["main"]()

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model directory of images, with random weights, that no test changes."""
    from scored_models import random_model, write_model

    return write_model(random_model("squeezenet"), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of tensors as large as `scored_models.WINDOWS`."""
    from scored_models import WINDOWS, random_model, write_model

    return write_model(random_model("squeezenet", rows=WINDOWS[..., None]), tmp_path_factory.mktemp("windows"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size such as "64k", until the end of the test."""
    place = tmp_path / "disk"

    def mount(size: str) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            place.rmdir()
            pytest.skip("this user cannot mount a tmpfs")
        return place

    yield mount
    if place.exists():
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real standalone cluster: a master and two one-core workers."""
    with standalone_cluster(tmp_path_factory.mktemp("standalone")) as url:
        yield url

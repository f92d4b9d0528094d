"""The session of jobs and notebooks, and what plain spark-submit finds without a flag."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from insitu.cluster.session import check_master, spark_session
from insitu.errors import UserError

PROBE_JOB = """
import socket, sys
from insitu.cluster.session import spark_session
from insitu.job import run_job

def main():
    spark = spark_session("probe")
    partitions = spark.sparkContext.parallelize(range(2), 2)
    environments = partitions.map(lambda _: sys.prefix).collect()
    jvm = spark._jvm
    jvm.java.lang.Class.forName("com.intel.analytics.bigdl.dllib.utils.Engine")
    return {"environments": environments, "java": jvm.java.lang.System.getProperty("java.specification.version"),
            "time_zone": spark.conf.get("spark.sql.session.timeZone"), "executors": jvm_executors(spark)}

def jvm_executors(spark):
    return spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1

run_job("probe", main)
"""


@pytest.fixture
def probe_job(tmp_path: Path) -> Path:
    job = tmp_path / "probe.py"
    job.write_text(PROBE_JOB)
    return job


def test_session_is_attached_to(spark: SparkSession) -> None:
    assert spark_session("again").sparkContext is spark.sparkContext


def test_local_session_speaks_utc_and_stays_on_this_machine(spark: SparkSession) -> None:
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.sparkContext.getConf().get("spark.driver.host") == "127.0.0.1"


def test_submit_finds_bigdl_and_says_only_the_jobs_own_words(submit: Callable, probe_job: Path) -> None:
    done = submit(probe_job)
    assert done.summary["java"] == "17"
    assert done.summary["environments"] == [sys.prefix] * 2
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_standalone_cluster_runs_on_two_executors(submit: Callable, probe_job: Path, standalone: str) -> None:
    done = submit(probe_job, master=standalone)
    assert done.summary["executors"] == 2
    assert done.stderr == ""


def test_unreachable_master_is_one_line(submit: Callable, probe_job: Path) -> None:
    done = submit(probe_job, master="spark://127.0.0.1:1", timeout_s=60)
    assert done.returncode == 2
    line = "probe: --master: no Spark master answers at spark://127.0.0.1:1; start it, or correct the address\n"
    assert done.stdout + done.stderr == line


def test_master_without_a_port() -> None:
    with pytest.raises(UserError, match=r"--master: spark://somewhere has no port"):
        check_master("spark://somewhere")


@pytest.fixture
def path_without_java(tmp_path: Path) -> str:
    """A PATH with this environment and every tool but Java."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for directory in ("/usr/bin", "/bin"):
        for tool in Path(directory).iterdir():
            if not tool.name.startswith("java") and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    return f"{Path(sys.executable).parent}{os.pathsep}{tools}"


def test_machine_without_java_uses_the_environments(path_without_java: str, probe_job: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["spark-submit", str(probe_job)],
        env={"PATH": path_without_java, "INSITU_LOG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert json.loads(done.stdout)["java"] == "17", done.stderr
    assert done.stderr == ""
    assert (tmp_path / "insitu.log").stat().st_size > 0


def test_java_home_that_is_no_17_is_named(path_without_java: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["spark-submit", "--version"],
        env={"PATH": path_without_java, "INSITU_LOG_DIR": str(tmp_path), "JAVA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stderr.startswith(f"JAVA_HOME: {tmp_path} is not a Java 17, so ")

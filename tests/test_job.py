"""How a job ends whose Spark is shut down under it."""

import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import os, signal, threading, time
from insitu.cluster.session import spark_session
from insitu.job import run_job

def shut_down(context):
    tracker = context.statusTracker()
    while not any(tracker.getStageInfo(stage).numActiveTasks for stage in tracker.getActiveStageIds()):
        time.sleep(0.1)
    context._jsc.sc().stop()

def main():
    context = spark_session("job").sparkContext
    threading.Thread(target=shut_down, args=(context,), daemon=True).start()
    SIGNAL
    context.parallelize([1], 1).foreach(lambda _: time.sleep(60))

run_job("job", main)
"""
TERMINATED = """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except SystemExit:
        pass
"""


@pytest.mark.parametrize(
    ("received", "code", "words"),
    [
        ("", 1, "job: failed: Spark was shut down, and no signal came: by its master or its resource manager"),
        (TERMINATED, 143, "job: terminated: Spark was shut down"),
    ],
    ids=["by its master", "with a signal"],
)
def test_job_whose_spark_is_shut_down_tells_a_signal_from_a_failure(
    tmp_path: Path, received: str, code: int, words: str
) -> None:
    script = tmp_path / "job.py"
    script.write_text(JOB.replace("    SIGNAL\n", received))
    job = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (job.returncode, job.stdout) == (code, ""), job.stderr
    assert job.stderr.splitlines()[-1].startswith(words)

"""A training job that kills its own workers and executors: `spark-submit killing_job.py DATA OUTPUT KILLS RECIPE`.

KILLS is a JSON list of [step, victim]: after that step a random process of that sort gets SIGKILL. Victims:
`training`, the process that runs TensorFlow; `python`, Spark's Python worker above it; `executor`, an
executor's JVM. RECIPE is a recipe as JSON.
"""

import json
import os
import random
import sys
from typing import Any

import psutil

import insitu
from insitu.cluster.session import spark_session
from insitu.job import run_job
from insitu.recipe import parse


class Killer:
    """Kills by its list, one victim for each entry, and says so on stderr."""

    def __init__(self, kills: list[tuple[int, str]], application: str) -> None:
        self._kills = sorted(kills)
        self._application = application
        self._random = random.Random(json.dumps(kills))

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "restart":
            print(f"restart: {event['reason']}", file=sys.stderr)
        if event["event"] != "step" or not self._kills or event["step"] < self._kills[0][0]:
            return
        _, victim = self._kills.pop(0)
        process = self._random.choice(self._victims(victim))
        print(f"kill: {victim} after step {event['step']}", file=sys.stderr)
        process.kill()

    def _victims(self, kind: str) -> list[psutil.Process]:
        executors = [process for process in psutil.process_iter() if self._application in _command(process)]
        jvms = [process for process in executors if "CoarseGrainedExecutorBackend" in _command(process)]
        if kind == "executor":
            return jvms
        roots = jvms or [psutil.Process(os.getppid())]
        daemons = [child for root in roots for child in root.children() if "pyspark.daemon" in _command(child)]
        workers = [worker for daemon in daemons for worker in daemon.children() if worker.children()]
        return workers if kind == "python" else [worker.children()[0] for worker in workers]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main() -> dict[str, Any]:
    data, output, kills, recipe = sys.argv[1:]
    spark = spark_session("killing job")
    killer = Killer(json.loads(kills), spark.sparkContext.applicationId)
    return insitu.train(spark, parse(json.loads(recipe)), data=data, output=output, listener=killer)


if __name__ == "__main__":
    run_job("killing_job", main)

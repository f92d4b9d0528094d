"""A training job that kills or halts its own workers: `spark-submit killing_job.py DATA OUTPUT KILLS RECIPE`.

KILLS is a JSON list of [step, victim]: once a step event or a checkpoint of that step or a later one is heard of, a
random process of that sort gets SIGKILL, or SIGSTOP where the victim begins with `halted-`. Victims: `training`, the
process that runs TensorFlow; `python`, Spark's Python worker above it; `executor`, an executor's JVM. RECIPE is a
recipe as JSON.
"""

import json
import os
import random
import signal
import sys
from typing import Any

import psutil

import insitu
from insitu.cluster.session import spark_session
from insitu.job import run_job
from insitu.recipe import parse


class Killer:
    """Kills by its list, one victim for each entry, and says so on stderr.

    Args:
        kills: step and victim.
        application: Spark's id of the application whose executors are looked for.
        driver: the driver's JVM, which in local mode is the executor.
    """

    def __init__(self, kills: list[tuple[int, str]], application: str, driver: psutil.Process) -> None:
        self._kills = sorted(kills)
        self._application = application
        self._driver = driver
        self._random = random.Random(json.dumps(kills))

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "restart":
            print(f"restart: {event['reason']}", file=sys.stderr)
        if event["event"] not in ("step", "checkpoint") or not self._kills or event["step"] < self._kills[0][0]:
            return
        _, victim = self._kills.pop(0)
        process = self._random.choice(self._victims(victim.removeprefix("halted-")))
        print(f"kill: {victim} {process.pid} after step {event['step']}", file=sys.stderr)
        process.send_signal(signal.SIGSTOP if victim.startswith("halted-") else signal.SIGKILL)

    def _victims(self, kind: str) -> list[psutil.Process]:
        executors = [process for process in psutil.process_iter() if self._application in command_line(process)]
        jvms = [process for process in executors if "CoarseGrainedExecutorBackend" in command_line(process)]
        if kind == "executor":
            return jvms
        roots = jvms or [self._driver]
        daemons = [child for root in roots for child in root.children() if "pyspark.daemon" in command_line(child)]
        workers = [worker for daemon in daemons for worker in daemon.children() if worker.children()]
        return workers if kind == "python" else [worker.children()[0] for worker in workers]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main() -> dict[str, Any]:
    data, output, kills, recipe = sys.argv[1:]
    spark = spark_session("killing job")
    killer = Killer(json.loads(kills), spark.sparkContext.applicationId, psutil.Process(os.getppid()))
    return insitu.train(spark, parse(json.loads(recipe)), data=data, output=output, listener=killer)


if __name__ == "__main__":
    run_job("killing_job", main)

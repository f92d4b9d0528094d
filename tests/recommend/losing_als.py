"""Fits ALS and kills executors on the way: `spark-submit losing_als.py RATINGS FACTORS KILLS`.

KILLS is a JSON list of iterations; when so many are done a random executor's JVM gets SIGKILL. The users' factors go to
FACTORS as Parquet. The summary holds the iterations as the fit told them.
"""

import json
import random
import sys
import threading
import time
from typing import Any

import psutil

from insitu.cluster.session import spark_session
from insitu.job import run_job
from insitu.recommend.als import ALS


def _executors(application: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if application in command and "CoarseGrainedExecutorBackend" in command:
            found.append(process)
    return found


def _kill_at(als: ALS, kills: list[int], application: str) -> None:
    for iteration in kills:
        while len(als.history) < iteration:
            time.sleep(0.01)
        victim = random.Random(iteration).choice(_executors(application))
        print(f"kill: executor {victim.pid} after iteration {iteration}", file=sys.stderr)
        victim.kill()


def main() -> dict[str, Any]:
    ratings, factors, kills = sys.argv[1:]
    spark = spark_session("losing als")
    als = ALS(rank=8, maxIter=30, regParam=0.05, seed=1, numUserBlocks=4, numItemBlocks=4)
    application = spark.sparkContext.applicationId
    arguments = (als, json.loads(kills), application)
    threading.Thread(target=_kill_at, args=arguments, daemon=True).start()
    model = als.fit(spark.read.parquet(ratings))
    model.userFactors.write.parquet(factors)
    return {"history": als.history}


if __name__ == "__main__":
    run_job("losing_als", main)

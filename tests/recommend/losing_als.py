"""Fits ALS and kills executors on the way: `spark-submit losing_als.py RATINGS FACTORS KILLS CHECKPOINTS`.

KILLS is a JSON list of iterations and numbers of executors; when so many iterations are done, the JVMs of as many
random executors get SIGKILL. Factors are saved in CHECKPOINTS every 5 iterations. The users' go to FACTORS as Parquet.
The summary holds the iterations as the fit told them.
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


def _kill_at(als: ALS, kills: list[tuple[int, int]], application: str) -> None:
    for iteration, count in kills:
        while len(als.history) < iteration:
            time.sleep(0.01)
        for victim in random.Random(iteration).sample(_executors(application), count):
            print(f"kill: executor {victim.pid} after iteration {iteration}", file=sys.stderr)
            victim.kill()


def main() -> dict[str, Any]:
    ratings, factors, kills, checkpoints = sys.argv[1:]
    spark = spark_session("losing als")
    spark.sparkContext.setCheckpointDir(checkpoints)
    als = ALS(rank=8, maxIter=30, regParam=0.05, seed=1, numUserBlocks=4, numItemBlocks=4, checkpointInterval=5)
    application = spark.sparkContext.applicationId
    arguments = (als, json.loads(kills), application)
    threading.Thread(target=_kill_at, args=arguments, daemon=True).start()
    model = als.fit(spark.read.parquet(ratings))
    model.userFactors.write.parquet(factors)
    return {"history": als.history}


if __name__ == "__main__":
    run_job("losing_als", main)

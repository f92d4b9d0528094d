"""One ALS fit, timed: `spark-submit als_fit.py RATINGS SETTINGS`; the last line of stdout is a JSON object.

RATINGS is a Parquet data set of `insitu data ratings`; SETTINGS is JSON: `module` (whose class ALS is fitted), `blocks`
(numbers to try), and ALS's own parameters. After a warm-up, two iterations with each number of blocks choose among
them; whole fits with the best are timed, from a cached DataFrame to factors that are counted: as many as half a minute
holds, of which the fastest counts. What is held out, a tenth of the ratings by their hash, gives the RMSE.
"""

import json
import sys
import time
from importlib import import_module
from typing import Any

from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from insitu.cluster.session import spark_session

_TRIAL_ITERATIONS = 2
_ENOUGH_SECONDS = 30


def _fit(estimator: Any, ratings: DataFrame, **params: Any) -> tuple[float, Any]:
    started = time.monotonic()
    model = estimator(**params).fit(ratings)
    model.userFactors.count()
    model.itemFactors.count()
    return time.monotonic() - started, model


def main() -> None:
    ratings, settings = sys.argv[1], json.loads(sys.argv[2])
    spark = spark_session("als fit")
    cores = spark.sparkContext.defaultParallelism
    is_held_out = F.abs(F.xxhash64("user", "item")) % 10 == 0
    rows = spark.read.parquet(ratings)
    if settings.get("implicitPrefs"):
        rows = rows.withColumn("rating", F.abs("rating"))
    train = rows.filter(~is_held_out).repartition(cores).cache()
    held_out = rows.filter(is_held_out)
    train.count()
    estimator = import_module(settings.pop("module")).ALS
    blocks = settings.pop("blocks")
    params = {"seed": 1, "coldStartStrategy": "drop", **settings}
    _fit(estimator, train, **params, maxIter=_TRIAL_ITERATIONS)
    trials = {
        number: _fit(estimator, train, **params, maxIter=_TRIAL_ITERATIONS, numUserBlocks=number, numItemBlocks=number)[
            0
        ]
        for number in blocks
    }
    best = min(trials, key=trials.__getitem__)
    times: list[float] = []
    while sum(times) < _ENOUGH_SECONDS:
        seconds, model = _fit(estimator, train, **params, maxIter=10, numUserBlocks=best, numItemBlocks=best)
        times.append(seconds)
    rmse = None
    if not settings.get("implicitPrefs"):
        rmse = RegressionEvaluator(labelCol="rating").evaluate(model.transform(held_out))
    print(json.dumps({"seconds": min(times), "rmse": rmse, "blocks": best}))


if __name__ == "__main__":
    main()

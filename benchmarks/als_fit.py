"""One ALS fit, timed: `spark-submit als_fit.py RATINGS SETTINGS`; the last line of stdout is a JSON object.

RATINGS is a Parquet data set of `insitu data ratings`; SETTINGS is JSON: `module` (whose class ALS is fitted), `blocks`
(numbers to try), and ALS's own parameters. After a warm-up, two iterations with each number of blocks choose among
them; whole fits with the best are timed, from a cached DataFrame to factors that are counted: as many as half a minute
holds, of which the fastest counts. What is held out, a tenth of the ratings by their hash, gives the RMSE; of implicit
feedback what is minimised is told instead, divided by the number of training ratings. `peak_mib` is the most memory
that the JVM had, in which both driver and executor are.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from insitu.cluster.session import spark_session
from memory import peak_kib

_TRIAL_ITERATIONS = 2
_ENOUGH_SECONDS = 30


def _fit(estimator: Any, ratings: DataFrame, **params: Any) -> tuple[float, Any]:
    started = time.monotonic()
    model = estimator(**params).fit(ratings)
    model.userFactors.count()
    model.itemFactors.count()
    return time.monotonic() - started, model


def _implicit_objective(model: Any, ratings: DataFrame, *, alpha: float, reg: float) -> float:
    """Hu, Koren, Volinsky 2008, doi:10.1109/ICDM.2008.22, equation 3, with ALS-WR's weights, divided by the ratings."""
    x, y = (_matrix(factors) for factors in (model.userFactors, model.itemFactors))
    table: Any = ratings.select("user", "item", "rating").toPandas()
    user, item, rating = (table[name].to_numpy() for name in ("user", "item", "rating"))
    predicted = np.einsum("nk,nk->n", x[user], y[item])
    everywhere = ((x.T @ x) * (y.T @ y)).sum()
    where_rated = ((1 + alpha * rating) * (1 - predicted) ** 2 - predicted**2).sum()
    sizes = sum((np.bincount(ids, minlength=len(f)) * (f**2).sum(axis=1)).sum() for ids, f in ((user, x), (item, y)))
    return float(everywhere + where_rated + reg * sizes) / len(table)


def _matrix(factors: DataFrame) -> np.ndarray:
    """float64 [ids, rank], by id; zeros where there is none."""
    table: Any = factors.toPandas()
    matrix = np.zeros((table["id"].max() + 1, len(table["features"][0])))
    matrix[table["id"]] = np.stack(table["features"])
    return matrix


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
    if settings.get("implicitPrefs"):
        spark.conf.set("spark.sql.execution.arrow.pyspark.enabled", True)
        quality = {"objective": _implicit_objective(model, train, alpha=1.0, reg=settings["regParam"])}
    else:
        quality = {"rmse": RegressionEvaluator(labelCol="rating").evaluate(model.transform(held_out))}
    peak_mib = peak_kib(os.getppid()) / 1024  # spark-submit's Java started this program
    print(json.dumps({"seconds": min(times), "blocks": best, "peak_mib": peak_mib, **quality}))


if __name__ == "__main__":
    main()

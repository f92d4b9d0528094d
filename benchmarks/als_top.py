"""Top ten items of all users, timed: `spark-submit als_top.py RATINGS`; the last line of stdout is a JSON object.

Ours and MLlib's take turns on one model of rank 64; each writes its lists to nowhere.
"""

import json
import sys
import time
from typing import Any

from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame

from insitu.cluster.session import spark_session
from insitu.recommend.als import ALS
from insitu.recommend.top import top_items

_TURNS = 2
_TOP = 10


def _seconds(lists: DataFrame) -> float:
    started = time.monotonic()
    lists.write.format("noop").mode("overwrite").save()
    return time.monotonic() - started


def _lists(recommended: DataFrame) -> dict[int, list[Any]]:
    return {row.user: row.recommendations for row in recommended.collect()}


def _differing(model: ALSModel) -> int:
    """Users whose lists hold other items, where that is no tie."""
    ours, theirs = _lists(top_items(model, k=_TOP)), _lists(model.recommendForAllUsers(_TOP))
    assert ours.keys() == theirs.keys()
    return sum(
        any(o.item != t.item and abs(o.rating - t.rating) > 1e-5 for o, t in zip(ours[user], theirs[user], strict=True))
        for user in ours
    )


def main() -> None:
    spark = spark_session("als top")
    model = ALS(rank=64, maxIter=2, seed=1).fit(spark.read.parquet(sys.argv[1]))
    best = {"ours": float("inf"), "mllib": float("inf")}
    for _ in range(_TURNS):
        best["ours"] = min(best["ours"], _seconds(top_items(model, k=_TOP)))
        best["mllib"] = min(best["mllib"], _seconds(model.recommendForAllUsers(_TOP)))
    print(json.dumps({**best, "differing": _differing(model)}))


if __name__ == "__main__":
    main()

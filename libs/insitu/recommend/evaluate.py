"""How good a factorisation is, on ratings that it was not trained on."""

from collections.abc import Callable
from typing import Any, Literal

from pyspark.ml.evaluation import RankingEvaluator, RegressionEvaluator
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from insitu.data.layout import split_column
from insitu.recommend.prepare import Prepared
from insitu.recommend.recipe import AlsRecipe
from insitu.recommend.top import top_items

CONVERGENCE = "convergence.json"
SAMPLE_RATINGS = 200_000
_EARLY = (1, 2, 3, 5)
_RANKING_METRICS: dict[str, Literal["precisionAtK", "ndcgAtK", "meanAveragePrecisionAtK"]] = {
    "precision": "precisionAtK",
    "ndcg": "ndcgAtK",
    "map": "meanAveragePrecisionAtK",
}

Fit = Callable[[DataFrame, int], ALSModel]
"""Trains on `user` int, `item` int, `rating` float, for a number of iterations."""


def rating_error(predictions: DataFrame, metric: Literal["rmse", "mae"]) -> float:
    """The root mean square or mean absolute error of `prediction` against `rating`, both float."""
    evaluator = RegressionEvaluator(labelCol="rating", predictionCol="prediction", metricName=metric)
    return evaluator.evaluate(predictions)


def relevant(held_out: DataFrame, recipe: AlsRecipe) -> DataFrame:
    """The held-out ratings whose items a good list holds."""
    threshold = recipe.evaluation.relevant_from
    return held_out.filter(F.col("rating") > 0 if threshold is None else F.col("rating") >= threshold)


def ranking(model: ALSModel, training: DataFrame, hits: DataFrame, *, k: int) -> dict[str, float]:
    """Precision, NDCG and MAP at k of the users' lists, without what they rated in training.

    Args:
        model: with the columns `user` and `item`.
        training: `user` int, `item` int.
        hits: `user` int, `item` int, from `relevant`; every user in it is measured.
        k: length of the lists.
    """
    item = F.col("item").cast("double")
    wanted = hits.groupBy("user").agg(F.collect_list(item).alias("label"))
    lists = top_items(model, wanted.select("user"), k, training.select("user", "item"))
    listed = F.transform("recommendations", lambda entry: entry["item"].cast("double"))
    listed = F.coalesce(listed, F.array().cast("array<double>"))
    pairs = wanted.join(lists, "user", "left").select("label", listed.alias("prediction")).persist()
    evaluator = RankingEvaluator(k=k)
    try:
        return {
            f"{name}_at_{k}": evaluator.setMetricName(metric).evaluate(pairs)
            for name, metric in _RANKING_METRICS.items()
        }
    finally:
        pairs.unpersist()


def convergence(fit: Fit, prepared: Prepared, recipe: AlsRecipe) -> list[dict[str, Any]]:
    """What more iterations bring: a fit for each of a few numbers of them, on a sample of the users.

    The sample is drawn by the seed so that about `SAMPLE_RATINGS` of the training ratings are theirs.

    Args:
        fit: trains.
        prepared: what `fit` trained the model on.

    Returns:
        for each number: `iterations`, the sample's `ratings`, `metric`, and its value on
        the sample's `training` ratings (None of a ranking) and `held_out` ones (None where there is none).
    """
    training, held_out, ratings = prepared.training, prepared.held_out, prepared.counts["train"]
    if ratings > SAMPLE_RATINGS:
        drawn = split_column(F.col("user"), holdout=SAMPLE_RATINGS / ratings, seed=recipe.seed) == "validation"
        training, held_out = training.filter(drawn), held_out.filter(drawn)
        ratings = training.count()
    last = recipe.model.iterations
    points = [n for n in _EARLY if n < last] + [last]
    return [_point(fit, training, held_out, recipe, n) | {"ratings": ratings} for n in points]


def _point(fit: Fit, training: DataFrame, held_out: DataFrame, recipe: AlsRecipe, iterations: int) -> dict[str, Any]:
    model = fit(training, iterations)
    point: dict[str, Any] = {"iterations": iterations}
    if recipe.model.implicit:
        hits, k = relevant(held_out, recipe), recipe.evaluation.k
        measured = None if hits.isEmpty() else ranking(model, training, hits, k=k)
        metric = f"ndcg_at_{k}"
        return point | {"metric": metric, "training": None, "held_out": measured and measured[metric]}
    known = rating_error(model.transform(training), "rmse")
    new = None if held_out.isEmpty() else rating_error(model.transform(held_out), "rmse")
    return point | {"metric": "rmse", "training": known, "held_out": new}

"""ALS for Spark: MLlib's parameters and model, computed by vector code over whole rows (`jvm/recommend/ALS.scala`)."""

import json
from typing import Any

from pyspark.ml import recommendation
from pyspark.ml.param import Param, Params, TypeConverters


class ALS(recommendation.ALS):
    """`pyspark.ml.recommendation.ALS` with the same parameters, persistence and `ALSModel`, made faster.

    The rows' normal equations are built from all ratings of a row at once and solved in single precision, exactly
    or by conjugate gradient; with `regParam` 0 a row with fewer ratings than `rank` gets the solution of least norm.
    Factors stay on the executors; where there are several, twice, so that one may be lost. With a checkpoint
    directory (`SparkContext.setCheckpointDir`) they are also saved every `checkpointInterval` iterations.

    Args:
        solver: `cholesky` solves every row exactly; `cg` takes three steps of conjugate gradient from the row's last
            factors, but for rows of more than 1024 ratings; `mllib` is MLlib's own ALS on MKL; `auto` takes `cg` where
            it is faster without a loss, for implicit feedback from rank 32 on, and `cholesky` else.
        params: those of `pyspark.ml.recommendation.ALS`, by name.

    Raises (from `fit`, as Spark's own errors):
        IllegalArgumentException: no rating, `cg` with `nonnegative`.
        SparkException: a rating that is null or not finite, an id that is null or no 32-bit integer, equations that
            single precision cannot solve, too few blocks for Java's arrays; the message names the value or the
            parameter.
        IllegalStateException: MKL is not loaded; of an executor, for `mllib`, it is a SparkException that says so.
    """

    solver: Param[str] = Param(
        Params._dummy(),
        "solver",
        "how rows are solved: auto, cholesky (exactly), cg (a few steps of conjugate gradient), mllib (MLlib's ALS)",
        typeConverter=TypeConverters.toString,
    )

    def __init__(self, *, solver: str = "auto", **params: Any) -> None:
        super().__init__(**params)
        self._java_obj = self._new_java_obj("insitu.recommend.als.ALS", self.uid)
        self._setDefault(solver="auto")
        self._set(solver=solver)

    def setParams(self, *, solver: str | None = None, **params: Any) -> "ALS":
        super().setParams(**params)
        return self if solver is None else self.setSolver(solver)

    def setSolver(self, value: str) -> "ALS":
        return self._set(solver=value)

    def getSolver(self) -> str:
        return self.getOrDefault(self.solver)

    @property
    def history(self) -> list[dict[str, float]]:
        """Iterations of this object's last `fit`, also while it runs in another thread; empty under `mllib`.

        Each has `iteration` (from 1), `seconds`, and `loss`: the mean squared error of the training ratings; for
        implicit feedback that of all pairs of user and item, by confidence, summed and divided by the ratings.
        """
        java: Any = self._java_obj
        return json.loads(java.history())

"""Training a factorisation as a whole: check, split, train, measure, and publish the model directory."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem, qualify
from insitu.cluster.progress import Progress, shown
from insitu.data.publish import publishing
from insitu.errors import UserError
from insitu.job import attempt
from insitu.provenance import code_version, environment
from insitu.recommend import evaluate
from insitu.recommend.als import ALS
from insitu.recommend.executors import on_executors
from insitu.recommend.ids import translated
from insitu.recommend.prepare import Prepared, prepare
from insitu.recommend.ratings import Table, open_table, resolve
from insitu.recommend.recipe import AlsRecipe


def train_als(spark: SparkSession, recipe: AlsRecipe, *, data: str, output: str) -> dict[str, Any]:
    """Train a recipe on a dataset of ratings and publish a model directory.

    It holds MLlib's own saved `ALSModel` in `als/`, whose users and items are numbers; `users.parquet` and
    `items.parquet` (`id` as in the dataset, `index`, `ratings`) say whose; `predictions.parquet`, the held-out
    ratings with the model's. These tables are written by the executors and never held by the driver.

    Args:
        spark: the session on whose executors it is trained.
        recipe: from `insitu.recommend.recipe.load_als`.
        data: a Parquet directory or file, or CSV with a header, on any file system that Spark reads.
        output: the model directory to make; nothing may be there yet.

    Returns:
        the summary: `output`, `Prepared.counts`, `metrics` on the held-out
        ratings, `fit_seconds` and `seconds`; `not_done`, a sentence, where the report could not be drawn.

    Raises:
        UserError: anything that the user can mend.
    """
    started = time.time()
    data, output = qualify(spark, "--data", data), qualify(spark, "--output", output)
    with publishing(spark, "--output", output) as hidden, ExitStack() as stack:
        staging = qualify(spark, "--output", hidden)
        table = open_table(spark, data, setting="--data")
        recipe = recipe.model_copy(update={"data": resolve(table, recipe.data)})
        prepared = prepare(table, recipe, staging, stack)
        with _checkpoints(spark, f"{staging}/_checkpoints"):
            model, history, fit_seconds = _train(recipe, prepared)
            predictions = _predictions(model, prepared, f"{staging}/{artifact.PREDICTIONS}")
            metrics = _measure(model, predictions, recipe, prepared)
            points = _convergence(recipe, prepared)
            summary = {
                "output": output,
                **prepared.counts,
                "metrics": metrics,
                "fit_seconds": fit_seconds,
                "seconds": round(time.time() - started, 1),
            }
            model.write().save(f"{staging}/{artifact.ALS}")
            local = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="insitu-")))
            (local / artifact.RECIPE).write_text(recipe.to_yaml())
            artifact.write_json(local / artifact.METRICS, metrics)
            artifact.write_json(local / evaluate.CONVERGENCE, points)
            artifact.write_json(local / artifact.PROVENANCE, _provenance(table, recipe, summary, started))
            (local / artifact.HISTORY).write_text("".join(json.dumps(line) + "\n" for line in history))
            print("report: drawing", file=sys.stderr)
            undrawn = attempt(
                lambda: _draw_report(local, model, prepared, predictions),
                f"{output} is published, but its report cannot be drawn",
            )
            file_system, path = open_filesystem(staging)
            file_system.put(f"{local}/", f"{path}/", recursive=True)
        artifact.seal(staging, each=on_executors(spark))
    return summary | ({"not_done": undrawn} if undrawn else {})


def _estimator(recipe: AlsRecipe, iterations: int) -> ALS:
    chosen = recipe.model
    blocks = {"numUserBlocks": chosen.user_blocks, "numItemBlocks": chosen.item_blocks}
    return ALS(
        rank=chosen.rank,
        maxIter=iterations,
        regParam=chosen.reg,
        implicitPrefs=chosen.implicit,
        alpha=chosen.alpha,
        nonnegative=chosen.nonnegative,
        solver=chosen.solver,
        userCol="user",
        itemCol="item",
        ratingCol="rating",
        seed=recipe.seed,
        checkpointInterval=chosen.checkpoint_interval,
        coldStartStrategy="drop",
        **{name: number for name, number in blocks.items() if number is not None},
    )


def _train(recipe: AlsRecipe, prepared: Prepared) -> tuple[ALSModel, list[dict[str, float]], float]:
    """The model, its `ALS.history`, and the seconds that it took."""
    chosen = recipe.model
    kind = "implicit" if chosen.implicit else "explicit"
    print(f"als: rank {chosen.rank}, {chosen.iterations} iterations, {kind}, {chosen.solver}", file=sys.stderr)
    started = time.monotonic()
    estimator = _estimator(recipe, chosen.iterations)

    def progress() -> Progress:
        done = estimator.history
        return Progress(len(done), chosen.iterations, f"loss {done[-1]['loss']:.4f}" if done else "")

    with shown(progress, name="als", what="iteration", stream=sys.stderr), _users_errors():
        model = estimator.fit(prepared.training)
    return model, estimator.history, round(time.monotonic() - started, 2)


@contextmanager
def _users_errors() -> Iterator[None]:
    """What `ALS.fit` says of parameters and ratings, by the recipe's keys."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        told = str(error)
        if "regParam: leaves" in told:
            problem = "leaves equations that single precision cannot solve"
            raise UserError("model.reg", problem, "set a larger one, or scale huge ratings down") from None
        if "left single precision" in told:
            problem = "ratings are so large that the factors leave single precision"
            raise UserError("data.rating_column", problem, "name another column, or scale it down") from None
        raise


def _measure(model: ALSModel, predictions: DataFrame, recipe: AlsRecipe, prepared: Prepared) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if not recipe.model.implicit:
        metrics = {"rmse": evaluate.rating_error(predictions, "rmse"), "mae": evaluate.rating_error(predictions, "mae")}
    if recipe.ranks:
        hits = evaluate.relevant(prepared.held_out, recipe)
        if hits.isEmpty():
            threshold = recipe.evaluation.relevant_from
            problem = f"no held-out rating is {'over 0' if threshold is None else f'{threshold:g} or more'}"
            raise UserError("evaluation.relevant_from", problem, "lower it, or bring more ratings")
        metrics |= evaluate.ranking(model, prepared.training, hits, k=recipe.evaluation.k)
    print("als: held-out " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()), file=sys.stderr)
    return metrics


def _convergence(recipe: AlsRecipe, prepared: Prepared) -> list[dict[str, Any]]:
    print("als: measuring what fewer iterations reach", file=sys.stderr)
    return evaluate.convergence(
        lambda ratings, iterations: _estimator(recipe, iterations).fit(ratings), prepared, recipe
    )


@contextmanager
def _checkpoints(spark: SparkSession, directory: str) -> Iterator[None]:
    """A place for the factors' checkpoints in a session that has none: without one they are not written."""
    if spark.sparkContext.getCheckpointDir() is not None:
        yield
        return
    spark.sparkContext.setCheckpointDir(directory)
    try:
        yield
    finally:
        spark.sparkContext._jsc.setCheckpointDir(None)
    file_system, path = open_filesystem(directory)
    file_system.rm(path, recursive=True)


def _predictions(model: ALSModel, prepared: Prepared, path: str) -> DataFrame:
    """The held-out ratings by their users' and items' own ids, with the model's `prediction`, written to `path`."""
    rows = model.transform(prepared.held_out)
    named = translated(translated(rows, "user", prepared.users, to="id"), "item", prepared.items, to="id")
    named.write.parquet(path)
    return rows.sparkSession.read.schema(named.schema).parquet(path)


def _provenance(table: Table, recipe: AlsRecipe, summary: dict[str, Any], started: float) -> dict[str, Any]:
    rows = {name: summary[name] for name in ("train", "held_out", "cold", "quarantined", "merged")}
    return {
        "data": {"uri": table.uri, "fingerprint": table.fingerprint(), "rows": rows},
        "code": code_version(),
        "environment": environment(),
        "seed": recipe.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "run": {name: summary[name] for name in ("users", "items", "fit_seconds", "seconds")},
    }


def _draw_report(directory: Path, model: ALSModel, prepared: Prepared, predictions: DataFrame) -> None:
    from insitu.recommend.report import write_report  # here: its libraries take two seconds to load

    write_report(directory, model=model, prepared=prepared, predictions=predictions)

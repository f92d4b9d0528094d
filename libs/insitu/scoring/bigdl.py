"""Distributed inference with BigDL: a DataFrame's rows scored in the executors' JVMs (`jvm/Scorer.scala`)."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from insitu.bigdl.convert import convert
from insitu.bigdl.converted import Converted
from insitu.bigdl.vectors import write_start
from insitu.cluster.executors import executor_cores
from insitu.errors import UserError
from insitu.registry import find_model
from insitu.scoring.columns import check_no_column, find_input
from insitu.scoring.trained import load

if TYPE_CHECKING:
    import keras
    from pyspark.sql import DataFrame, SparkSession

EngineType = Literal["mklblas", "mkldnn"]


def score(
    df: "DataFrame",
    model_dir: str,
    *,
    image_column: str | None = None,
    tensor_column: str | None = None,
    engine_type: EngineType = "mkldnn",
    batch: int = 32,
) -> "DataFrame":
    """Add a model's scores of each row's image or tensor, decoded in the executors' JVMs; no job is run.

    Args:
        df: has one column of what the model reads: of images, encoded, as Spark's binaryFile or image, or as Hugging
            Face's struct; or of tensors, as lists of numbers or as NumPy arrays in binary.
        model_dir: path or URI of a model directory, which is verified, or of a registry for its current version.
        image_column: None for the only column that can be an image, or, among several, the one called `image`.
        tensor_column: likewise, of the columns that can hold tensors, for a model that reads these.
        engine_type: `mkldnn` computes one batch at a time on all of an executor's cores, `mklblas` one on each core.
        batch: rows that are scored together, for whose activations an executor needs memory.

    Returns:
        As `insitu.score`; rows keep their order.

    Raises:
        UserError: as `insitu.score`, or a model that BigDL cannot compute.
    """
    from pyspark.sql import DataFrame

    spark = df.sparkSession
    _check_options(engine_type, batch)
    trained = load(find_model(spark, "model_dir", model_dir))
    check_no_column(df, "scores", "fault")
    input = find_input(df, trained.signature.preprocessing, image_column, tensor_column)
    converted = _convert(trained.model)
    height, width, channels = input.shape
    with TemporaryDirectory(prefix="insitu-") as scratch:
        write_start(converted, trained.model.get_weights(), scratch)
        scoring = {
            "digest": _digest(converted, Path(scratch)),
            "engine": engine_type,
            "threads": _executor_threads(spark),
            "batch": batch,
            "topology": converted.topology,
            "scale": converted.scale,
            "offset": converted.offset,
            "activation": converted.activation,
            "input": input.column.name,
            "input_form": input.column.form,
            "height": height,
            "width": width,
            "channels": channels,
        }
        jvm: Any = spark.sparkContext._jvm
        scorer = jvm.com.intel.analytics.bigdl.insitu.Scorer
        return DataFrame(scorer.score(df._jdf, json.dumps(scoring), f"file://{scratch}"), spark)


def _check_options(engine_type: str, batch: int) -> None:
    if engine_type not in ("mklblas", "mkldnn"):
        raise UserError("engine_type", f"{engine_type!r}, expected mklblas or mkldnn", "take one of them")
    if batch < 1:
        raise UserError("batch", f"{batch}, expected at least 1", "give a larger one")


def _convert(model: "keras.Model") -> Converted:
    try:
        return convert(model)
    except UserError as error:
        raise UserError("model_dir", error.args[1], "score it with Keras, by insitu.load") from None


def _digest(converted: Converted, vectors: Path) -> str:
    digest = hashlib.sha256(converted.topology.encode())
    for name in ("parameters", "statistics"):
        digest.update((vectors / name).read_bytes())
    return digest.hexdigest()


def _executor_threads(spark: "SparkSession") -> int:
    """The cores of the smallest executor; of those to come where none is there yet."""
    to_come = int(spark.sparkContext.getConf().get("spark.executor.cores", "1"))
    return min(executor_cores(spark), default=to_come)

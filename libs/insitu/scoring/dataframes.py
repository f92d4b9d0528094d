"""Scoring as a part of Spark's own plans: a column of a DataFrame, or a function of SQL."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from insitu.artifact import TensorPreprocessing
from insitu.data.columns import ImageColumn, TensorColumn
from insitu.data.inputs import ImageInput, Input, TensorInput
from insitu.errors import UserError
from insitu.scoring.columns import arrow_schema, check_no_column, find_input
from insitu.scoring.ir import Precision
from insitu.scoring.row_scorer import COLUMN, FAULT, HEIGHT, MEAN, NOT_FINITE, RESULT, SCORES, WIDTH, RowScorer
from insitu.scoring.shipped import Runtime, ShippedModel, ship

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

RESULT_COLUMN = "insitu result"


def score(
    df: "DataFrame",
    model_dir: str,
    *,
    image_column: str | None = None,
    tensor_column: str | None = None,
    runtime: Runtime = "openvino",
    precision: Precision | None = None,
    batch: int = 32,
) -> "DataFrame":
    """Add a model's scores of each row's image or tensor; no job is run.

    Args:
        df: has one column of what the model reads: of images, encoded, as Spark's binaryFile or image, or as Hugging
            Face's struct; or of tensors, as lists of numbers or as NumPy arrays in binary.
        model_dir: path or URI of a model directory, which is verified, or of a registry for its current version.
        image_column: None for the only column that can be an image, or, among several, the one called `image`.
        tensor_column: likewise, of the columns that can hold tensors, for a model that reads these.
        runtime: openvino; or, in fp32, tensorflow, or bigdl, in the executors' JVMs.
        precision: int8, bf16 or fp32; None is int8 where jobs/quantize.py has made the directory, else fp32.
        batch: rows that are inferred together.

    Returns:
        All columns of `df`; `scores`, array<float> [K], 0..1, in the order of the signature's class names, null where
        the row cannot be read; `fault`, why it cannot, else null.

    Raises:
        UserError: no usable column, a column that is called `scores` or `fault` already, no model directory or a
            changed one, or a precision that it does not hold.
    """
    check_no_column(df, SCORES, FAULT)
    model = ship(df.sparkSession, model_dir, runtime=runtime, precision=precision, rows=batch)
    scored = scored_rows(df, [model], image_column=image_column, tensor_column=tensor_column)
    result = scored[RESULT_COLUMN]
    own = [scored[quoted(column)] for column in df.columns]
    return scored.select(*own, result[SCORES][0].alias(SCORES), result[FAULT].alias(FAULT))


def register_udf(
    spark: "SparkSession",
    name: str,
    model_dir: str,
    *,
    runtime: Runtime = "openvino",
    precision: Precision | None = None,
    batch: int = 32,
) -> None:
    """Register a model as a function of SQL: `SELECT id, chexnet(image)['Pneumonia'] FROM scans`.

    It takes encoded images in binary, or, for a model that reads tensors, lists of floats, and gives a
    map<string, float> from class name to score, 0..1; null where the row cannot be read.

    Args:
        spark: the session.
        name: of the function.
        model_dir, runtime, precision, batch: as for `score`.

    Raises:
        UserError: as `score`.
    """
    if runtime == "bigdl":
        raise UserError("runtime", "bigdl, which scores DataFrames only", "take openvino, or insitu.score")
    model = ship(spark, model_dir, runtime=runtime, precision=precision, rows=batch)
    preprocessing, names = model.signature.preprocessing, model.signature.class_names
    kind: pa.DataType
    input: Input
    if isinstance(preprocessing, TensorPreprocessing):
        kind, input = pa.list_(pa.float32()), TensorInput(TensorColumn(COLUMN, "list"), preprocessing.shape)
    else:
        column = ImageColumn(COLUMN, "encoded")
        kind, input = pa.binary(), ImageInput(column, preprocessing.size, preprocessing.channels)
    scorer = RowScorer((model,), (input,), kind)

    def scores(columns: Iterator[Any]) -> Iterator[Any]:
        import pandas as pd

        for result in scorer(columns):
            rows = [None if row is None else dict(zip(names, row[0], strict=True)) for row in result[SCORES]]
            yield pd.Series(rows, dtype=object)

    spark.udf.register(name, _iterator_udf(scores, "map<string, float>"))


def scored_rows(
    df: "DataFrame", models: Sequence[ShippedModel], *, image_column: str | None, tensor_column: str | None
) -> "DataFrame":
    """Add a column `RESULT_COLUMN` of type `RESULT`: what becomes of each row.

    Args:
        df: the rows.
        models: of one runtime, that read the same column.
        image_column, tensor_column: as for `score`.

    Raises:
        UserError: as `score`.
    """
    inputs = [find_input(df, model.signature.preprocessing, image_column, tensor_column) for model in models]
    if models[0].runtime == "bigdl":
        return _scored_by_bigdl(df, models, inputs)
    return df.withColumn(RESULT_COLUMN, _scored_column(df, models, inputs))


def _scored_by_bigdl(df: "DataFrame", models: Sequence[ShippedModel], inputs: Sequence[Input]) -> "DataFrame":
    """In the executors' JVMs, which tell no statistics of the inputs."""
    from pyspark.sql import functions as F

    from insitu.scoring import bigdl

    scored, faults, scores = df, [], []
    for place, (model, input) in enumerate(zip(models, inputs, strict=True)):
        image, tensor = (None, input.column.name) if isinstance(input, TensorInput) else (input.column.name, None)
        own = {SCORES: f"{RESULT_COLUMN} {SCORES} {place}", FAULT: f"{RESULT_COLUMN} {FAULT} {place}"}
        scored = bigdl.score(
            scored, model.directory, image_column=image, tensor_column=tensor, batch=model.rows
        ).withColumnsRenamed(own)
        answer = scored[own[SCORES]]
        finite = F.forall(answer, lambda score: F.abs(score) < F.lit(float("inf")))  # NaN is above that
        scores.append(answer)
        faults += [scored[own[FAULT]], F.when(~finite, F.lit(NOT_FINITE))]
    fault = F.coalesce(*faults)
    fields = {
        FAULT: fault,
        **dict.fromkeys((MEAN, HEIGHT, WIDTH), F.lit(None)),
        SCORES: F.when(fault.isNull(), F.array(*scores)),
    }
    result = F.struct(*(field.alias(name) for name, field in fields.items()))
    return scored.select(*(scored[quoted(name)] for name in df.columns), result.cast(RESULT).alias(RESULT_COLUMN))


def _scored_column(df: "DataFrame", models: Sequence[ShippedModel], inputs: Sequence[Input]) -> "Column":
    name = inputs[0].column.name
    own = tuple(_renamed(input) for input in inputs)
    scorer = RowScorer(tuple(models), own, arrow_schema(df).field(name).type)

    def result(columns: Iterator[Any]) -> Iterator[Any]:
        return scorer(columns)

    # else Spark would move a filter on the scores below them, and score its rows once more for that
    return _iterator_udf(result, RESULT).asNondeterministic()(df[quoted(name)])


def with_results(rows: "DataFrame", models: Mapping[str, ShippedModel]) -> "DataFrame":
    """Rows with a column of `RESULT` for each model, called by its key; what they read is in the column `COLUMN`."""
    answered = rows
    for name, model in models.items():
        preprocessing = model.signature.preprocessing
        columns = (None, COLUMN) if isinstance(preprocessing, TensorPreprocessing) else (COLUMN, None)
        scored = scored_rows(answered, [model], image_column=columns[0], tensor_column=columns[1])
        answered = scored.withColumnRenamed(RESULT_COLUMN, name)
    return answered


def quoted(column: str) -> str:
    """A column's name as Spark's expressions take any."""
    return "`" + column.replace("`", "``") + "`"


def _renamed(input: Input) -> Input:
    if isinstance(input, ImageInput):
        return replace(input, column=replace(input.column, name=COLUMN))
    return replace(input, column=replace(input.column, name=COLUMN))


def _iterator_udf(function: Callable[[Iterator[Any]], Iterator[Any]], returns: str) -> Any:
    """A scalar iterator UDF; by its annotations Spark knows it as one."""
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    made: Any = pd.DataFrame if returns == RESULT else pd.Series
    function.__annotations__ = {"columns": Iterator[pd.Series], "return": Iterator[made]}
    return pandas_udf(function, returns)  # type: ignore[call-overload]

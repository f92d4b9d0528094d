"""The same five pictures in every image column convention, each written by its own maker."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from petastorm.codecs import CompressedImageCodec, CompressedNdarrayCodec, NdarrayCodec, ScalarCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
from pyspark.sql import SparkSession
from pyspark.sql.types import IntegerType

from image_data import as_uri, encode, picture

PICTURES = [picture(n) for n in range(5)]


class PngCodec(CompressedImageCodec):
    """Petastorm's PNG codec, the encoding done by Pillow where petastorm wants OpenCV."""

    def __init__(self) -> None:
        self._image_codec, self._quality = ".png", 80

    def encode(self, unischema_field: UnischemaField, value: np.ndarray) -> bytearray:
        return bytearray(encode(value))


def write_files(folder: Path) -> str:
    folder.mkdir()
    for number, pixels in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(encode(pixels))
    return str(folder)


def encoded(spark: SparkSession, folder: Path) -> None:
    pq.write_table(pa.table({"image": [encode(pixels) for pixels in PICTURES]}), folder / "part.parquet")


def large_encoded(spark: SparkSession, folder: Path) -> None:
    column = pa.array([encode(pixels) for pixels in PICTURES], pa.large_binary())
    pq.write_table(pa.table({"scan": column}), folder / "part.parquet")


def binary_file(spark: SparkSession, folder: Path) -> None:
    files = spark.read.format("binaryFile").load(write_files(folder / "_files"))
    files.orderBy("path").coalesce(1).write.mode("append").parquet(str(folder))


def spark_image(spark: SparkSession, folder: Path) -> None:
    files = spark.read.format("image").load(write_files(folder / "_files"))
    files.orderBy("image.origin").coalesce(1).write.mode("append").parquet(str(folder))


def huggingface(spark: SparkSession, folder: Path) -> None:
    column = [{"bytes": encode(pixels), "path": None} for pixels in PICTURES]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(column, kind)}), folder / "part.parquet")


def petastorm(codec: object) -> Callable[[SparkSession, Path], None]:
    def write(spark: SparkSession, folder: Path) -> None:
        shape = PICTURES[0].shape
        fields = [
            UnischemaField("id", np.int32, (), ScalarCodec(IntegerType()), False),
            UnischemaField("image", np.uint8, shape, codec, False),
        ]
        schema = Unischema("Pictures", fields)
        rows = [dict_to_spark_row(schema, {"id": n, "image": pixels}) for n, pixels in enumerate(PICTURES)]
        with materialize_dataset(spark, as_uri(folder), schema, row_group_size_mb=1):
            table = spark.createDataFrame(rows, schema.as_spark_schema())
            table.coalesce(1).write.mode("overwrite").parquet(as_uri(folder))

    return write


CONVENTIONS = [
    pytest.param(encoded, "encoded", id="encoded"),
    pytest.param(large_encoded, "encoded", id="large binary"),
    pytest.param(binary_file, "binary_file", id="Spark binaryFile"),
    pytest.param(spark_image, "spark_image", id="Spark image"),
    pytest.param(huggingface, "huggingface", id="Hugging Face"),
    pytest.param(petastorm(PngCodec()), "petastorm", id="petastorm PNG"),
    pytest.param(petastorm(NdarrayCodec()), "petastorm", id="petastorm ndarray"),
    pytest.param(petastorm(CompressedNdarrayCodec()), "petastorm", id="petastorm compressed ndarray"),
]

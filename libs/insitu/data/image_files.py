"""A folder of image files as Spark sees it, and which of them are no images.

The driver holds what Spark's own listing of the folder holds, names and lengths, and nothing more.
Executors hold at most `ARROW_ROWS` files of at most `MAX_FILE_BYTES` each, however large the folder.
"""

import re
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from insitu.cluster.filesystem import qualify
from insitu.data.decode import BadImage, decode
from insitu.errors import UserError

MAX_FILE_BYTES = 128 << 20
ARROW_ROWS = 8
_AUTHORITY = r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?"  # the file: or hdfs://namenode:8020 of a URI


def list_files(spark: SparkSession, data: str, *, leave_out: str | None) -> DataFrame:
    """The files below a folder, or that a glob matches, at any depth.

    Args:
        data: folder or glob on any file system that Spark knows. Names that start with "_" or "."
            are hidden.
        leave_out: a file that is not one of the images, such as the CSV of labels.

    Returns:
        `path` string, `id` string (the path below the folder, or below the part of a glob before
        its first wildcard), `length` long in bytes, `content` binary, read only where it is selected.

    Raises:
        UserError: nothing there.
    """
    nothing = UserError("--data", f"{data} matches no file", "name a folder of images or a glob")
    try:
        found = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(data)
    except AnalysisException:
        raise nothing from None
    location = _location_of("path")
    found = _with_empty_files(spark, found)
    if leave_out is not None:
        found = found.filter(location != _location(spark, "--labels", leave_out))
    root = _fixed_part(_location(spark, "--data", data))
    relative = F.when(location.startswith(root + "/"), F.substring(location, len(root) + 2, 1 << 30))
    if found.select("path").isEmpty():
        raise nothing
    identity = F.coalesce(relative, F.substring_index(location, "/", -1))
    return found.select("path", identity.alias("id"), "length", "content")


def readable(files: DataFrame) -> DataFrame:
    """The files that are small enough to be read whole; Spark does not open the others."""
    return files.filter(F.col("length") <= MAX_FILE_BYTES)


def bad_images(files: DataFrame) -> DataFrame:
    """Decode every file once, on the executors, and return those that fail: `path`, `reason` strings.

    Act on the result within `arrow_batches` of `ARROW_ROWS`: each is a whole image file.
    """
    failed = readable(files).select("path", "content").mapInArrow(_failures, "path string, reason string")
    reason = F.format_string(f"%d bytes, more than the {MAX_FILE_BYTES} that are read", "length")
    return failed.union(files.filter(F.col("length") > MAX_FILE_BYTES).select("path", reason))


def _with_empty_files(spark: SparkSession, found: DataFrame) -> DataFrame:
    """Add the files of zero bytes, which Spark lists as inputs but never reads (SPARK-26161).

    The names go from Spark's listing to the executors within the JVM, not through Python.
    """
    jvm = spark._jvm
    assert jvm is not None
    uris = jvm.scala.collection.mutable.WrappedArray.make(found._jdf.inputFiles())
    listed = DataFrame(spark._jsparkSession.createDataset(uris, jvm.org.apache.spark.sql.Encoders.STRING()), spark)
    listed = listed.select(F.url_decode(F.regexp_replace("value", r"\+", "%2B")).alias("path"))
    known = found.select(_location_of("path"))
    empty = listed.join(known, _location_of(listed["path"]) == known["location"], "left_anti")
    rows = empty.select("path", F.lit(0).cast("long").alias("length"), F.lit(b"").alias("content")).localCheckpoint()
    return found.select(rows.columns).union(rows)


def _location_of(path: Column | str) -> Column:
    return F.regexp_replace(path, _AUTHORITY, "").alias("location")


def _failures(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        reasons = pa.array([_reason(content.as_py()) for content in batch["content"]], pa.string())
        checked = pa.record_batch([batch["path"], reasons], names=["path", "reason"])
        yield checked.filter(reasons.is_valid())


def _reason(payload: bytes) -> str | None:
    try:
        decode(payload, size=None, channels=1)
    except BadImage as error:
        return str(error)
    return None


def _location(spark: SparkSession, setting: str, path: str) -> str:
    return re.sub(_AUTHORITY, "", qualify(spark, setting, path))


def _fixed_part(location: str) -> str:
    """A glob up to the folder before its first wildcard; a plain path as it is."""
    wildcard = re.search(r"[*?\[{]", location)
    return location[: location.rindex("/", 0, wildcard.start())] if wildcard else location

"""What is to be scored: the files of a folder that no earlier run has seen, and their rows.

A file is known by its path. One that arrives late is scored when it is there, however old; one that is delivered again
under the same name is not scored again. As for every stream of files in Spark, a file has to appear whole: written
elsewhere on the same file system, or under a name that begins with `_` or `.`, and then renamed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError
from insitu.scoring.dataframes import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

ID, SOURCE = "insitu id", "insitu source"
_FILES = "path string, modificationTime timestamp, length long, content binary"
_ANY_AGE = "36500d"
_PARQUET_MAGIC = b"PAR1"
_GLOB = re.compile(r"([\\*?\[\]{}^])")
_AUTHORITY = r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?"  # the file: or hdfs://namenode:8020 of a URI
_FILES_LOOKED_AT = 8
_TASKS_PER_CORE = 4


@dataclass(frozen=True)
class Rows:
    """The rows of some files.

    Attributes:
        frame: the files' own columns, and `ID` and `SOURCE`, strings: what the row is called, and the file's URI; None
            where no file can be read.
        bad_files: those that cannot be, and why.
    """

    frame: "DataFrame | None"
    bad_files: Sequence[tuple[str, str]]


def each_batch_of_new_files(
    spark: "SparkSession", data: str, *, checkpoint: str, most: int, handle: Callable[[int, Sequence[str]], None]
) -> None:
    """Call `handle` with the number and the files of each batch that is not done yet, in order.

    What is done is known to Spark's Structured Streaming: a batch whose `handle` did not return is handed out again, as
    it was, by the next run; one whose `handle` returned perhaps too. So `handle` has to tell by the number what is
    done.

    Args:
        data: a folder.
        checkpoint: a folder for Spark's own record.
        most: files in a batch.
        handle: what it raises ends the run, and is raised here.
    """
    errors: list[BaseException] = []

    def handle_batch(files: "DataFrame", number: int) -> None:
        try:
            handle(number, sorted(row.path for row in files.select("path").collect()))
        except BaseException as error:
            errors.append(error)
            raise

    files = spark.readStream.format("binaryFile").schema(_FILES)
    files = files.option("recursiveFileLookup", True).option("maxFilesPerTrigger", most).option("maxFileAge", _ANY_AGE)
    stream = files.load(_literally(data)).select("path").writeStream.foreachBatch(handle_batch)
    query = stream.option("checkpointLocation", checkpoint).trigger(availableNow=True).start()
    try:
        query.awaitTermination()
    except Exception:
        if errors:
            raise errors[0] from None
        raise
    finally:
        query.stop()


def read_rows(spark: "SparkSession", data: str, paths: Sequence[str], *, id_column: str | None) -> Rows:
    """The rows of Parquet files, or a row for each image file, as it is by the first files' first bytes.

    Args:
        data: the folder that the files are in; folders such as `site=north` below it are columns.
        paths: URIs.
        id_column: of Parquet; None takes `id` if there is one, else a row is called by its file and its place there.

    Raises:
        UserError: no such column.
    """
    from pyspark.sql import functions as F

    if not any(map(_is_parquet, paths[:_FILES_LOOKED_AT])):
        frame = spark.read.format("binaryFile").load([_literally(path) for path in paths])
        root = re.sub(_AUTHORITY, "", data).rstrip("/")
        below = F.substring(F.regexp_replace("path", _AUTHORITY, ""), len(root) + 2, 1 << 30)
        return Rows(frame.withColumns({ID: below, SOURCE: _uri(F.col("path"))}), [])
    bad = _bad_files(spark, paths)
    good = [path for path in paths if path not in dict(bad)]
    if not good:
        return Rows(None, bad)
    frame = _with_folders(spark.read.option("recursiveFileLookup", True).parquet(*map(_literally, good)), good)
    if id_column is not None and id_column not in frame.columns:
        raise UserError("--id-column", f"the data has no column {id_column}", f"name one of {', '.join(frame.columns)}")
    name = id_column or ("id" if "id" in frame.columns else None)
    place = F.concat_ws(" row ", _decoded(F.col("_metadata.file_name")), F.col("_metadata.row_index"))
    identity = F.coalesce(frame[quoted(name)].cast("string"), place) if name else place
    source = _decoded(F.col("_metadata.file_path"))
    return Rows(frame.withColumns({ID: identity, SOURCE: _uri(source)}), bad)


def _with_folders(frame: "DataFrame", paths: Sequence[str]) -> "DataFrame":
    """The rows, with a column for each folder such as `site=north`, null where a file is in none.

    Spark's own discovery leaves out files that are below none of them.
    """
    from pyspark.sql import functions as F

    folders = {part.partition("=")[0] for path in paths for part in path.split("/")[:-1] if "=" in part}
    for name in sorted(folders - set(frame.columns)):
        value = F.regexp_extract("_metadata.file_path", f"/{re.escape(name)}=([^/]*)/", 1)
        frame = frame.withColumn(name, F.when(value != "", _decoded(value)))
    return frame


def _decoded(part: "Column") -> "Column":
    """A part of a URI as Spark's `_metadata` has it, without its percent signs."""
    from pyspark.sql import functions as F

    return F.url_decode(F.regexp_replace(part, r"\+", "%2B"))


def _uri(path: "Column") -> "Column":
    """A local path as it is written everywhere else."""
    from pyspark.sql import functions as F

    return F.regexp_replace(path, "^file:/+", "file:///")


def is_empty(data: str, *, setting: str) -> bool:
    """Whether a folder holds no file yet.

    Raises:
        UserError: there is no such folder.
    """
    file_system, path = open_filesystem(data)
    if not file_system.isdir(path):
        found = "is a file" if file_system.exists(path) else "does not exist"
        raise UserError(setting, f"{data} {found}", "name a folder of Parquet files or of images")
    return not any(files for _, _, files in file_system.walk(path))


def _bad_files(spark: "SparkSession", paths: Sequence[str]) -> list[tuple[str, str]]:
    """Parquet files whose footer cannot be read."""
    context = spark.sparkContext
    tasks = min(len(paths), _TASKS_PER_CORE * context.defaultParallelism)
    reasons = context.parallelize(paths, tasks).map(_fault).collect()
    return [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]


def _fault(path: str) -> str:
    file_system, place = open_filesystem(path)
    try:
        with file_system.open(place, "rb") as source:
            pq.read_metadata(source)
    except (pa.ArrowException, OSError) as error:
        return " ".join(str(error).split())
    return ""


def _is_parquet(path: str) -> bool:
    file_system, place = open_filesystem(path)
    with file_system.open(place, "rb") as source:
        return source.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def _literally(path: str) -> str:
    """A path as Hadoop's globs take it for itself."""
    return _GLOB.sub(r"\\\1", path)

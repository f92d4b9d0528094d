"""What is to be scored: the files of a folder that no earlier run has seen, and their rows.

A file is known by its path. One that arrives late is scored when it is there, however old; one that is delivered again
under the same name is not scored again. As for every stream of files in Spark, a file has to appear whole: written
elsewhere on the same file system, or under a name that begins with `_` or `.`, and then renamed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from insitu.cluster.filesystem import open_filesystem
from insitu.cluster.interrupts import DeferredInterrupts
from insitu.errors import UserError
from insitu.scoring.dataframes import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession

ID, SOURCE = "insitu id", "insitu source"
_FILES = "path string, modificationTime timestamp, length long, content binary"
_ANY_AGE = "36500d"
_WAIT_SECONDS = 1
_BELOW = "insitu path"
_MAGIC = b"PAR1"
_TAIL_BYTES = 8
_LEAST_BYTES = len(_MAGIC) + _TAIL_BYTES
_GLOB = re.compile(r"([\\*?\[\]{}^])")
_AUTHORITY = r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?"  # the file: or hdfs://namenode:8020 of a URI
_TASKS_PER_CORE = 4


@dataclass(frozen=True)
class Rows:
    """The rows of some files.

    Attributes:
        frame: the files' own columns, and `ID` and `SOURCE`, strings: what the row is called, and the file's URI; None
            where no file can be read.
        bad_files: those that cannot be, and why.
        parquet: whether the files are Parquet; None where that is not known yet.
    """

    frame: "DataFrame | None"
    bad_files: Sequence[tuple[str, str]]
    parquet: bool | None


def each_batch_of_new_files(
    spark: "SparkSession", data: str, *, checkpoint: str, most: int, handle: Callable[[int, Mapping[str, float]], None]
) -> None:
    """Call `handle` with the number of each batch that is not done yet, in order, and its files.

    What is done is known to Spark's Structured Streaming: a batch whose `handle` did not return is handed out again, as
    it was, by the next run; one whose `handle` returned perhaps too. So `handle` has to tell by the number what is
    done.

    Args:
        data: a folder.
        checkpoint: a folder for Spark's own record.
        most: files in a batch.
        handle: gets by URI when each file was modified, in seconds since 1970; what it raises ends the run, and is
            raised here.
    """
    from pyspark.sql import functions as F

    errors: list[BaseException] = []

    def handle_batch(files: "DataFrame", number: int) -> None:
        try:
            found = files.select("path", F.unix_timestamp("modificationTime").alias("modified")).collect()
            handle(number, {row.path: row.modified for row in sorted(found)})
        except BaseException as error:
            errors.append(error)
            raise

    files = spark.readStream.format("binaryFile").schema(_FILES)
    files = files.option("recursiveFileLookup", True).option("maxFilesPerTrigger", most).option("maxFileAge", _ANY_AGE)
    stream = files.load(_literally(data)).select("path", "modificationTime").writeStream.foreachBatch(handle_batch)
    query = stream.option("checkpointLocation", checkpoint).trigger(availableNow=True).start()
    try:
        with DeferredInterrupts(lambda: None) as interrupts:
            while not query.awaitTermination(_WAIT_SECONDS):
                interrupts.deliver()
    except Exception:
        if errors:
            raise errors[0] from None
        raise
    finally:
        query.stop()


def files_below(spark: "SparkSession", data: str) -> list[str]:
    """URIs of the files that a folder holds now, at any depth, but for those that begin with `_` or `.`."""
    files = _reader(spark.read.format("binaryFile").schema(_FILES)).load(_literally(data)).select("path")
    return sorted(row.path for row in files.collect())


def read_rows(
    spark: "SparkSession", data: str, paths: Sequence[str], *, id_column: str | None, parquet: bool | None
) -> Rows:
    """The rows of Parquet files, or a row for each image file.

    Args:
        data: the folder that the files are in; folders such as `site=north` below it are columns.
        paths: URIs.
        id_column: of Parquet; None takes `id` if there is one, else a row is called by its file and its place there.
        parquet: what the folder is known to hold; None takes Parquet where any of these files is.

    Raises:
        UserError: no such column, or files whose columns have other types.
    """
    from pyspark.sql import functions as F

    if not paths:
        return Rows(None, [], parquet)
    root = re.sub(_AUTHORITY, "", data).rstrip("/")
    context = spark.sparkContext
    tasks = min(len(paths), _TASKS_PER_CORE * context.defaultParallelism)
    looks = context.parallelize(paths, tasks).map(_look).collect()
    if not (parquet or (parquet is None and any(look.parquet for look in looks))):
        frame = _reader(spark.read.format("binaryFile")).load([_literally(path) for path in paths])
        path = F.regexp_replace("path", _AUTHORITY, "")
        below = F.substring(path, len(root) + 2, 1 << 30)
        frame = _with_folders(frame, below, [re.sub(_AUTHORITY, "", path)[len(root) :] for path in paths])
        return Rows(frame.withColumns({ID: below, SOURCE: _uri(F.col("path"))}), [], False)
    bad = [(look.path, look.fault) for look in looks if look.fault]
    good = [path for path, look in zip(paths, looks, strict=True) if look.rows]
    if not good:
        return Rows(None, bad, True)
    _check_types([look for look in looks if look.rows])
    frame = _reader(spark.read.option("mergeSchema", True)).parquet(*map(_literally, good))
    if id_column is not None and id_column not in frame.columns:
        raise UserError("--id-column", f"the data has no column {id_column}", f"name one of {', '.join(frame.columns)}")
    name = id_column or ("id" if "id" in frame.columns else None)
    source = F.url_decode(F.regexp_replace("_metadata.file_path", r"\+", "%2B"))  # of a URI's percent signs
    below = F.substring(F.regexp_replace(source, _AUTHORITY, ""), len(root) + 2, 1 << 30)
    place = F.concat_ws(" row ", below, F.col("_metadata.row_index"))
    identity = F.coalesce(frame[quoted(name)].cast("string"), place) if name else place
    frame = frame.withColumns({ID: identity, SOURCE: _uri(source), _BELOW: below})
    folders = [re.sub(_AUTHORITY, "", path)[len(root) :] for path in good]
    return Rows(_with_folders(frame, F.col(quoted(_BELOW)), folders).drop(_BELOW), bad, True)


def named_column(rows: "DataFrame", name: str, setting: str) -> "Column":
    """A column of `Rows.frame`; `UserError` with its columns where there is none of the name."""
    if name not in rows.columns:
        own = ", ".join(column for column in rows.columns if column not in (ID, SOURCE))
        raise UserError(setting, f"the data has no column {name}", f"its columns are {own}")
    return rows[quoted(name)]


def _reader(reader: "DataFrameReader") -> "DataFrameReader":
    """One that leaves no file out without a word, whatever the session is set to, and looks for no columns itself."""
    for option in ("ignoreCorruptFiles", "ignoreMissingFiles"):
        reader = reader.option(option, False)
    return reader.option("recursiveFileLookup", True)


def _with_folders(frame: "DataFrame", below: "Column", paths: Sequence[str]) -> "DataFrame":
    """The rows, with a column for each folder such as `site=north`, null where a file is in none.

    Spark's own discovery leaves out files that are below none of them. Values are written as Hive and Spark do, with
    percent signs and `__HIVE_DEFAULT_PARTITION__` for null.
    """
    from pyspark.sql import functions as F

    own = {column.lower() for column in frame.columns}
    folders = {part.partition("=")[0] for path in paths for part in path.split("/")[:-1] if "=" in part}
    for name in sorted(name for name in folders if name and name.lower() not in own):
        value = F.regexp_extract(F.concat(F.lit("/"), below), f"/{re.escape(name)}=([^/]*)/", 1)
        written = (value != "") & (value != "__HIVE_DEFAULT_PARTITION__")
        frame = frame.withColumn(name, F.when(written, F.url_decode(F.regexp_replace(value, r"\+", "%2B"))))
    return frame


def _uri(path: "Column") -> "Column":
    """A local path as it is written everywhere else."""
    from pyspark.sql import functions as F

    return F.regexp_replace(path, "^file:/+", "file:///")


@dataclass(frozen=True)
class _Look:
    """What a file is by its first and last bytes.

    Attributes:
        path: its URI.
        parquet: whether it begins as Parquet does.
        fault: why it is no whole Parquet file, or "".
        rows: of a whole one.
        types: of its columns, by name.
    """

    path: str
    parquet: bool
    fault: str
    rows: int
    types: dict[str, str]


def _look(path: str) -> _Look:
    """Look at a file; a file system that fails raises, so that no file is taken for damaged by that."""
    uri = re.sub("^file:/+", "file:///", path)
    file_system, place = open_filesystem(path)
    with file_system.open(place, "rb") as source:
        begin = source.read(len(_MAGIC))
        size = source.seek(0, 2)
        if begin != _MAGIC or size < _LEAST_BYTES:
            return _Look(uri, begin == _MAGIC, f"no Parquet file: {size} bytes starting with {begin!r}", 0, {})
        source.seek(size - _TAIL_BYTES)
        tail = source.read(_TAIL_BYTES)
        footer_bytes = min(int.from_bytes(tail[:4], "little"), size - _TAIL_BYTES)
        source.seek(size - _TAIL_BYTES - footer_bytes)
        footer = source.read(footer_bytes)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer + tail))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        return _Look(uri, True, f"no whole Parquet file: {' '.join(str(error).split())}", 0, {})
    return _Look(uri, True, "", metadata.num_rows, {field.name: str(field.type) for field in schema})


def _check_types(looks: Sequence[_Look]) -> None:
    seen: dict[str, _Look] = {}
    for look in looks:
        for name, kind in look.types.items():
            first = seen.setdefault(name, look)
            if first.types[name] != kind:
                problem = f"column {name} is {kind} in {look.path} and {first.types[name]} in {first.path}"
                raise UserError("--data", problem, "write one of them again, or take it away")


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


def _literally(path: str) -> str:
    """A path as Hadoop's globs take it for itself."""
    return _GLOB.sub(r"\\\1", path)

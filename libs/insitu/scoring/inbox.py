"""What is to be scored: the files of a folder that no earlier run has seen, and their rows.

A file is known by its path. One that arrives late is scored when it is there, however old; one that is delivered again
under the same name is not scored again. As for every stream of files in Spark, a file has to appear whole: written
elsewhere on the same file system, or under a name that begins with `_` or `.`, and then renamed.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from insitu.cluster.filesystem import open_filesystem
from insitu.cluster.interrupts import DeferredInterrupts
from insitu.errors import UserError
from insitu.scoring.dataframes import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession

T = TypeVar("T")

ID, SOURCE, PLACE = "insitu id", "insitu source", "insitu place"
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
_COLON = "a colon in its name, which Hadoop does not open"
_LOCAL = "^file:/+"
_NULL = "__HIVE_DEFAULT_PARTITION__"
_WRITTEN_AS_HIVE_DOES = "^([^%]|%[0-9A-Fa-f]{2})*$"


@dataclass(frozen=True)
class Rows:
    """The rows of some files.

    Attributes:
        frame: the files' own columns, and `ID`, `SOURCE` and `PLACE`, strings: what the row is called, the file's URI,
            and the file below the folder, of Parquet with the row's number, which no other row has; None where no file
            can be read.
        files: that it is of.
        bad_files: those that cannot be read, and why.
        columns: that files and folders have, those without a row too.
        parquet: whether the files are Parquet; None where that is not known yet.
    """

    frame: "DataFrame | None"
    files: Sequence[str]
    bad_files: Sequence[tuple[str, str]]
    columns: Collection[str]
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
            handle(number, {_written(row.path): row.modified for row in sorted(found)})
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


def files_below(spark: "SparkSession", data: str) -> dict[str, float]:
    """By URI when each file of a folder was modified, in seconds since 1970; at any depth, none that begins with `_`
    or `.`.
    """
    from pyspark.sql import functions as F

    files = _reader(spark.read.format("binaryFile").schema(_FILES)).load(_literally(data))
    found = files.select("path", F.unix_timestamp("modificationTime").alias("modified")).collect()
    return {_written(row.path): row.modified for row in found}


def read_rows(
    spark: "SparkSession",
    data: str,
    paths: Sequence[str],
    *,
    where: Mapping[str, str],
    id_column: str | None,
    parquet: bool | None,
) -> Rows:
    """The rows of Parquet files, or a row for each image file.

    Args:
        data: the folder that the files are in; folders such as `site=north` below it are columns.
        paths: URIs.
        where: by column the value, as text, of the rows that are asked for; files whose folders say that they hold none
            are left out.
        id_column: of Parquet; None takes `id` if there is one, else a row is called by its file and its place there.
        parquet: what the folder is known to hold; None takes Parquet where any of these files is.

    Raises:
        UserError: no such column, or files whose columns have other types.
    """
    if not paths:
        return Rows(None, [], [], [], parquet)
    root = re.sub(_AUTHORITY, "", data).rstrip("/")
    places = {path: re.sub(_AUTHORITY, "", path)[len(root) + 1 :] for path in paths}
    looks = _on_executors(spark, paths, _look)
    if parquet is None:
        parquet = any(look.parquet for look in looks)
    folders = {name for place in places.values() for name in _folder_names(place)}
    looks = [look for look in looks if _may_hold(look, places[look.path], where)]
    bad = [(look.path, look.fault) for look in looks if look.fault and (parquet or look.fault == _COLON)]
    files = [look.path for look in looks if look.rows or not (parquet or look.fault == _COLON)]
    if not files:
        return Rows(None, [], bad, folders, parquet)
    _check_types([look for look in looks if look.rows])
    _check_folders([look for look in looks if look.rows], places)
    frame = _parquet_rows(spark, files, root, id_column) if parquet else _image_rows(spark, files, root)
    frame = _with_folders(frame, [places[path] for path in files])
    columns = folders.union(frame.columns) - {ID, SOURCE, PLACE}
    return Rows(frame.drop(_BELOW), files, bad, columns, parquet)


def _image_rows(spark: "SparkSession", files: Sequence[str], root: str) -> "DataFrame":
    from pyspark.sql import functions as F

    frame = _reader(spark.read.format("binaryFile")).load([_literally(path) for path in files])
    below = _below(F.col("path"), root)
    return frame.withColumns({ID: below, SOURCE: _uri(F.col("path")), PLACE: below, _BELOW: below})


def _parquet_rows(spark: "SparkSession", files: Sequence[str], root: str, id_column: str | None) -> "DataFrame":
    from pyspark.sql import functions as F

    frame = _reader(spark.read.option("mergeSchema", True)).parquet(*map(_literally, files))
    if id_column is not None and id_column not in frame.columns:
        raise UserError("--id-column", f"the data has no column {id_column}", f"name one of {', '.join(frame.columns)}")
    name = id_column or ("id" if "id" in frame.columns else None)
    source = F.url_decode(F.regexp_replace("_metadata.file_path", r"\+", "%2B"))  # of a URI's percent signs
    below = _below(source, root)
    place = F.concat_ws(" row ", below, F.col("_metadata.row_index"))
    identity = F.coalesce(frame[quoted(name)].cast("string"), place) if name else place
    return frame.withColumns({ID: identity, SOURCE: _uri(source), PLACE: place, _BELOW: below})


def _below(path: "Column", root: str) -> "Column":
    from pyspark.sql import functions as F

    return F.substring(F.regexp_replace(path, _AUTHORITY, ""), len(root) + 2, 1 << 30)


def damaged_files(spark: "SparkSession", paths: Sequence[str]) -> dict[str, str]:
    """Of Parquet files those that cannot be read to their end, and why; every page is read."""
    faults = _on_executors(spark, paths, _read_through)
    return {path: fault for path, fault in zip(paths, faults, strict=True) if fault}


def named_column(rows: "DataFrame", name: str, setting: str, *, known: Collection[str] = ()) -> "Column":
    """A column of `Rows.frame`; null where it is `known` from others, `UserError` where there is none of the name."""
    from pyspark.sql import functions as F

    if name in rows.columns:
        return rows[quoted(name)]
    if name in known:
        return F.lit(None)
    own = ", ".join(column for column in rows.columns if column not in (ID, SOURCE, PLACE))
    raise UserError(setting, f"the data has no column {name}", f"its columns are {own}")


def _reader(reader: "DataFrameReader") -> "DataFrameReader":
    """One that leaves no file out without a word, whatever the session is set to, and looks for no columns itself."""
    for option in ("ignoreCorruptFiles", "ignoreMissingFiles"):
        reader = reader.option(option, False)
    return reader.option("recursiveFileLookup", True)


def _on_executors(spark: "SparkSession", paths: Sequence[str], look: Callable[[str], T]) -> list[T]:
    context = spark.sparkContext
    tasks = min(len(paths), _TASKS_PER_CORE * context.defaultParallelism)
    return context.parallelize(paths, tasks).map(look).collect()


def _with_folders(frame: "DataFrame", paths: Sequence[str]) -> "DataFrame":
    """The rows, with a column for each folder such as `site=north`, or `Site=north`, null where a file is in none.

    Spark's own discovery leaves out files that are below none of them. Values are written as Hive and Spark do, with
    percent signs and `__HIVE_DEFAULT_PARTITION__` for null.
    """
    from pyspark.sql import functions as F

    own = {column.lower() for column in frame.columns}
    names = {name.lower(): name for name in sorted({name for path in paths for name in _folder_names(path)})}
    for name in sorted(name for lower, name in names.items() if lower not in own):
        value = F.regexp_extract(F.concat(F.lit("/"), F.col(quoted(_BELOW))), f"(?i)/{re.escape(name)}=([^/]*)/", 1)
        decoded = F.url_decode(F.regexp_replace(value, r"\+", "%2B"))
        value = F.when(value.rlike(_WRITTEN_AS_HIVE_DOES), decoded).otherwise(value)
        frame = frame.withColumn(name, F.when((value != "") & (value != _NULL), value))
    return frame


def _folder_names(below: str) -> set[str]:
    """The columns that the folders of a path are, as they are written."""
    return {part.partition("=")[0] for part in below.split("/")[:-1] if "=" in part} - {""}


def _folders(below: str) -> dict[str, str | None]:
    """Their values, as `_with_folders` reads them, by the names in lower case."""
    found: dict[str, str | None] = {}
    for name, _, written in (part.partition("=") for part in below.split("/")[:-1] if "=" in part):
        value = unquote(written) if re.fullmatch(_WRITTEN_AS_HIVE_DOES, written) else written
        if name:
            found.setdefault(name.lower(), value if value not in ("", _NULL) else None)
    return found


def _uri(path: "Column") -> "Column":
    """A local path as it is written everywhere else."""
    from pyspark.sql import functions as F

    return F.regexp_replace(path, _LOCAL, "file:///")


def _written(path: str) -> str:
    """As `_uri`, of one path."""
    return re.sub(_LOCAL, "file:///", path)


@dataclass(frozen=True)
class _Look:
    """What a file is by its first and last bytes.

    Attributes:
        path: its URI.
        parquet: whether it begins as Parquet does.
        fault: why it cannot be opened or is no whole Parquet file, or "".
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
    if ":" in path.rpartition("/")[2]:
        return _Look(path, False, _COLON, 0, {})
    file_system, place = open_filesystem(path)
    with file_system.open(place, "rb") as source:
        begin = source.read(len(_MAGIC))
        source.seek(0, 2)  # hdfs-native's does not return the place
        size = source.tell()
        if begin != _MAGIC or size < _LEAST_BYTES:
            return _Look(path, begin == _MAGIC, f"no Parquet file: {size} bytes starting with {begin!r}", 0, {})
        source.seek(size - _TAIL_BYTES)
        tail = source.read(_TAIL_BYTES)
        footer_bytes = min(int.from_bytes(tail[:4], "little"), size - _TAIL_BYTES)
        source.seek(size - _TAIL_BYTES - footer_bytes)
        footer = source.read(footer_bytes)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer + tail))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        return _Look(path, True, _no_whole_parquet(error), 0, {})
    return _Look(path, True, "", metadata.num_rows, {field.name: _plain(field.type) for field in schema})


def _read_through(path: str) -> str:
    """Why a Parquet file cannot be read to its end, or ""; a file system that fails raises."""
    file_system, place = open_filesystem(path)
    with file_system.open(place, "rb") as source:
        whole = pa.BufferReader(source.read())
    try:
        for _ in pq.ParquetFile(whole).iter_batches():
            pass
    except (pa.ArrowException, OSError) as error:
        return _no_whole_parquet(error)
    return ""


def _no_whole_parquet(error: Exception) -> str:
    return f"no whole Parquet file: {' '.join(str(error).split())}"


def _plain(kind: pa.DataType) -> str:
    """A type as Spark reads it: writers store the same strings, lists and times in several forms."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_timestamp(kind):
        return "timestamp" if kind.tz else "timestamp without time zone"
    if pa.types.is_struct(kind):
        fields = (kind.field(place) for place in range(kind.num_fields))
        return f"struct<{', '.join(f'{field.name}: {_plain(field.type)}' for field in fields)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{_plain(kind.value_type)}>"
    return str(kind).removeprefix("large_")


def _may_hold(look: _Look, place: str, where: Mapping[str, str]) -> bool:
    """Whether a file may hold rows that are asked for; of one name a file's own column counts, not the folder."""
    own = {name.lower() for name in look.types}
    folders = {name: value for name, value in _folders(place).items() if name not in own}
    return all(folders.get(name.lower(), value) == value for name, value in where.items())


def _check_types(looks: Sequence[_Look]) -> None:
    seen: dict[str, _Look] = {}
    for look in looks:
        for name, kind in look.types.items():
            first = seen.setdefault(name, look)
            if first.types[name] != kind:
                problem = f"column {name} is {kind} in {look.path} and {first.types[name]} in {first.path}"
                raise UserError("--data", problem, "write one of them again, or take it away")


def _check_folders(looks: Sequence[_Look], places: Mapping[str, str]) -> None:
    """Of one name the files' own column counts: one that lacks it would lose what its folder says."""
    own = {name.lower(): look.path for look in looks for name in look.types}
    for look in looks:
        for name in _folders(places[look.path]).keys() & own.keys() - {column.lower() for column in look.types}:
            problem = f"{name} is a column of {own[name]} and a folder above {look.path}, which has no such column"
            raise UserError("--data", problem, "write the column into both, or into neither")


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

"""A Parquet dataset as its footers describe it; no data page is read here."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from insitu.cluster.filesystem import full_uri, open_filesystem
from insitu.data.columns import PETASTORM_KEY
from insitu.errors import UserError

_FOOTER_THREADS = 16
_SPARK_KEY = b"org.apache.spark.sql.parquet.row.metadata"


@dataclass(frozen=True)
class RowGroup:
    """One row group: file URI, index in the file, number of rows, bytes once they are decompressed, and the
    values of Hive partition folders (`split=train/`) on the file's path."""

    path: str
    index: int
    rows: int
    bytes: int
    partition: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A Parquet directory or file.

    Attributes:
        uri: where it is.
        schema: the columns, with petastorm's metadata where there is some.
        row_groups: in file order.
        fingerprint: hex SHA-256 of what the footers say: each file's path within the dataset, its
            rows and its footer's bytes, and each row group's rows and bytes as stored. No value is
            hashed, so a change that keeps all of these is not seen.
    """

    uri: str
    schema: pa.Schema
    row_groups: tuple[RowGroup, ...]
    fingerprint: str

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.row_groups)

    @property
    def row_bytes(self) -> float:
        """Mean bytes a row, decompressed as Parquet decompresses it."""
        return sum(group.bytes for group in self.row_groups) / max(1, self.rows)

    @property
    def partition_columns(self) -> set[str]:
        return {key for group in self.row_groups for key in group.partition}

    def class_names(self, column: str) -> list[str] | None:
        """The class names that the dataset itself gives for a label column, if any.

        They are in Spark's column metadata (`{"classes": [...]}`, as insitu writes it) or in
        Hugging Face's `ClassLabel` feature.
        """
        metadata = self.schema.metadata or {}
        for entry in json.loads(metadata.get(_SPARK_KEY, b'{"fields": []}'))["fields"]:
            if entry["name"] == column and "classes" in entry.get("metadata", {}):
                return list(entry["metadata"]["classes"])
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        feature = features.get(column)
        return feature.get("names") if isinstance(feature, dict) else None


def open_dataset(uri: str, *, setting: str = "--data") -> Dataset:
    """Read the footers of a Parquet directory or file.

    Every file is data whatever its name, as in Spark (Hive calls them 000000_0), but for files
    and folders whose names begin with `_` or `.`, and Hadoop's `*.crc`.

    Args:
        uri: where it is.
        setting: what named it, for the error.

    Raises:
        UserError: nothing there, no Parquet file, a damaged file, files of different schemas, no row.
    """
    file_system, root = open_filesystem(uri)
    if not file_system.exists(root):
        raise UserError(setting, f"{uri} does not exist", "name a Parquet directory or file")
    files = [root] if file_system.isfile(root) else sorted(file_system.find(root))
    files = [path for path in files if _is_data(path.removeprefix(root))]
    if not files:
        raise UserError(setting, f"{uri} holds no Parquet file", "name a directory such as jobs/ingest.py makes")
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = list(pool.map(lambda path: _footer(file_system, path, setting), files))
    schema = _common_schema(files, footers, setting)
    base = full_uri(uri)  # as Spark and the JVM know it: fsspec's own name of s3a:// is another
    groups = [
        RowGroup(
            f"{base}{path.removeprefix(root)}",
            index,
            footer.row_group(index).num_rows,
            footer.row_group(index).total_byte_size,
            _hive_partition(path, root),
        )
        for path, footer in zip(files, footers, strict=True)
        for index in range(footer.num_row_groups)
    ]
    if not any(group.rows for group in groups):
        raise UserError(setting, f"{uri} holds no row", "check the job that wrote it")
    schema = schema.with_metadata({**(schema.metadata or {}), **_petastorm_metadata(file_system, root)})
    return Dataset(uri, schema, tuple(groups), _fingerprint(root, files, footers))


def _is_data(relative: str) -> bool:
    parts = [part for part in relative.split("/") if part]
    return all(part[0] not in "_." for part in parts) and not relative.endswith(".crc")


def _footer(file_system: Any, path: str, setting: str) -> pq.FileMetaData:
    try:
        with file_system.open(path, "rb") as source, pq.ParquetFile(source) as file:
            return file.metadata
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            setting, f"{path} is no whole Parquet file ({reason})", "write it again or take it away"
        ) from None


def _common_schema(files: Sequence[str], footers: Sequence[pq.FileMetaData], setting: str) -> pa.Schema:
    schemas = [footer.schema.to_arrow_schema() for footer in footers]
    for path, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise UserError(setting, f"{path} has other columns than {files[0]}", "keep one dataset in one directory")
    return schemas[0]


def _hive_partition(path: str, root: str) -> dict[str, str]:
    folders = path.removeprefix(root).strip("/").split("/")[:-1]
    return dict(folder.split("=", 1) for folder in folders if "=" in folder)


def _petastorm_metadata(file_system: Any, root: str) -> dict[bytes, bytes]:
    path = f"{root.rstrip('/')}/_common_metadata"
    if not file_system.exists(path):
        return {}
    with file_system.open(path, "rb") as source:
        metadata = pq.read_schema(source).metadata or {}
    return {PETASTORM_KEY: metadata[PETASTORM_KEY]} if PETASTORM_KEY in metadata else {}


def _fingerprint(root: str, files: Sequence[str], footers: Sequence[pq.FileMetaData]) -> str:
    digest = hashlib.sha256()
    for path, footer in zip(files, footers, strict=True):
        digest.update(f"{path.removeprefix(root)} {footer.num_rows} {footer.serialized_size}\n".encode())
        for group in (footer.row_group(index) for index in range(footer.num_row_groups)):
            stored = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
            digest.update(f"{group.num_rows} {stored}\n".encode())
    return digest.hexdigest()

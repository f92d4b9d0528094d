"""File systems: what Spark calls a path, and how Python opens it.

Spark resolves a path against its Hadoop configuration (`fs.defaultFS`); Python workers then open
the resolved URI through fsspec, hdfs:// by the native client `hdfs-native`.
"""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from insitu.errors import UserError, WorkerError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyspark.sql import SparkSession

FILE_SYSTEM_ERRORS = (OSError, RuntimeError)
"""What a file system raises that is full or away; hdfs-native's errors are RuntimeErrors, as a `WorkerError` is."""

T = TypeVar("T")
_RETRY_SECONDS = 10

_PLAIN = re.compile(r"(?P<root>(file|hdfs):(//[^/]*)?)(?P<path>/.*)", re.DOTALL)

fsspec.register_implementation("hdfs", "hdfs_native.fsspec.HdfsFileSystem")


def qualify(spark: "SparkSession", setting: str, path: str) -> str:
    """The full URI of a path as Spark understands it, such as `hdfs://namenode:8020/data/xrays`.

    Raises:
        UserError: naming `setting`, where Spark knows no such file system.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    assert spark.sparkContext._jvm is not None
    try:
        hadoop_path = spark.sparkContext._jvm.org.apache.hadoop.fs.Path(path)
        file_system = hadoop_path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
        return str(file_system.makeQualified(hadoop_path).toString()).replace("file:/", "file:///", 1)
    except (Py4JJavaError, PySparkException) as error:
        reason = error.java_exception.getMessage() if isinstance(error, Py4JJavaError) else error
        raise UserError(
            setting, f"Spark cannot resolve {path!r} ({reason})", "mend the path or Spark's Hadoop settings"
        ) from None


def full_uri(path: str) -> str:
    """The full URI of a path where there is no Spark to ask: without a scheme it is of this machine's disk."""
    return path.rstrip("/") if "://" in path else f"file://{os.path.abspath(path)}"


def open_filesystem(uri: str) -> tuple["AbstractFileSystem", str]:
    """The fsspec file system of a URI and the path within it.

    Raises:
        UserError: where fsspec lacks the package for the scheme; the message names it.
    """
    scheme = uri.partition("://")[0]
    plain = _PLAIN.fullmatch(uri)
    try:
        if plain:  # fsspec's own parser would take `::` in a path for a chain of file systems
            return fsspec.core.url_to_fs(f"{plain['root']}/")[0], plain["path"].rstrip("/") or "/"
        return fsspec.core.url_to_fs(uri.replace("s3a://", "s3://", 1))
    except (ImportError, ValueError) as error:
        raise UserError(
            uri, f"no Python client for {scheme}:// ({error})", "install it on the driver and the workers"
        ) from None


def create(uri: str, content: bytes) -> bool:
    """Write a new file, and its folder; False where there is one already. Nothing is left where it fails."""
    file_system, path = open_filesystem(uri)
    folder = path.rpartition("/")[0]
    makes_folder = not file_system.exists(folder)
    file_system.makedirs(folder, exist_ok=True)
    exclusively = {"mode": "wb", "overwrite": False} if uri.startswith(("hdfs:", "viewfs:")) else {"mode": "xb"}
    opened = False
    try:
        with file_system.open(path, **exclusively) as target:
            opened = True
            target.write(content)
    except FileExistsError:
        return False
    except FILE_SYSTEM_ERRORS:
        with suppress(*FILE_SYSTEM_ERRORS):
            if opened:  # else it may be another job's
                file_system.rm_file(path)
            if makes_folder and not file_system.ls(folder):
                file_system.rmdir(folder)
        raise
    return True


def rename(file_system: "AbstractFileSystem", source: str, target: str, *, overwrite: bool = False) -> None:
    """Move a file or directory within a file system, in one step where it can.

    fsspec's `mv` of local paths copies file by file where the kernel refuses to rename, and so may leave a part.

    Args:
        file_system: of both paths.
        source, target: from where to where.
        overwrite: whether a file may take the place of one that is there.

    Raises:
        OSError: nothing is moved.
    """
    if isinstance(file_system, LocalFileSystem):
        os.replace(source, target)
    elif overwrite:
        file_system.mv(source, target, overwrite=True)
    else:
        file_system.mv(source, target, recursive=True)


def overwrite(uri: str, content: bytes) -> None:
    """Write a file so that it appears whole, in the place of what is there."""
    file_system, path = open_filesystem(uri)
    file_system.pipe_file(f"{path}.part", content)
    rename(file_system, f"{path}.part", path, overwrite=True)


def is_full(error: BaseException) -> bool:
    """Whether a file system raised it for lack of space or quota, which waiting does not mend."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def in_scratch(directory: str | Path) -> Iterator[None]:
    """Name the temporary directory where what is written there finds no space, for nobody would look for it."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        where = f"{os.path.abspath(directory)}, a temporary directory (of TMPDIR, or Spark's own)"
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} in {where}") from error


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def persist(action: Callable[[], T], what: str, *, retries: int = 60, tell: Callable[[str], None] = say) -> T:
    """Do something on a file system that may be away for a while: try again every ten seconds, and say so.

    Args:
        action: safe to do again.
        what: names it in the message.
        retries: how often it is tried again.
        tell: takes the message before each wait.

    Raises:
        OSError: it is full, or still away.
        WorkerError: raised at once where `action` has the workers do it.
    """
    for left in range(retries, -1, -1):
        try:
            return action()
        except WorkerError:
            raise
        except FILE_SYSTEM_ERRORS as error:
            if is_full(error) or not left:
                raise
            seconds = left * _RETRY_SECONDS
            tell(f"{what} failed ({error}); trying again for {seconds} s")
            time.sleep(_RETRY_SECONDS)
    raise AssertionError("the last try returns or raises")

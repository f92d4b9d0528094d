"""The Spark session that every job and notebook gets."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from insitu.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MASTER_TIMEOUT_S = 5.0


def spark_session(app_name: str) -> SparkSession:
    """Attach to the session that spark-submit or the notebook configured, or start a local one.

    Args:
        app_name: shown in Spark's user interface and logs.

    Returns:
        A session whose time zone is UTC and whose workers run this Python unless PYSPARK_PYTHON names another.
        A local one binds to 127.0.0.1, so it starts on a machine whose host name does not resolve.

    Raises:
        UserError: no Java 17 was found, or no master answers at the address that `--master` gave.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name).config("spark.sql.session.timeZone", "UTC")
    if SparkSession.getActiveSession() is None:
        master = _configured_master()
        if master.startswith("local"):
            builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
        check_master(master)
    interrupt = signal.getsignal(signal.SIGINT)
    session = builder.getOrCreate()
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        # Ctrl-C ends spark-submit's JVM too, and PySpark's handler would ask that JVM to cancel the jobs.
        signal.signal(signal.SIGINT, interrupt)
    return session


@contextmanager
def arrow_batches(spark: SparkSession, rows: int) -> Iterator[None]:
    """Within the block Spark hands Python at most so many rows at a time; it counts no bytes."""
    setting = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(setting)
    spark.conf.set(setting, rows)
    try:
        yield
    finally:
        spark.conf.set(setting, str(before))


def check_master(master: str) -> None:
    """Find out in seconds what Spark, which asks a standalone master for a minute, says with a stack trace.

    Args:
        master: a Spark master URL; only `spark://HOST:PORT[,HOST:PORT…]` is looked at.

    Raises:
        UserError: none of the hosts accepts a connection within 5 s.
    """
    if not master.startswith("spark://"):
        return
    addresses = master.removeprefix("spark://").split(",")
    if not any(_answers(address) for address in addresses):
        raise UserError("--master", f"no Spark master answers at {master}", "start it, or correct the address")


def _configured_master() -> str:
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError

    try:
        SparkContext._ensure_initialized()  # the JVM knows what spark-submit and spark-defaults.conf said
    except PySparkRuntimeError as error:
        if error.getErrorClass() != "JAVA_GATEWAY_EXITED":
            raise
        raise UserError("JAVA_HOME", "Java did not start", "run `insitu doctor`: it names the Java it finds") from None
    return SparkConf().get("spark.master", "local[*]")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise UserError(
            "--master", f"spark://{address} has no port", "write spark://HOST:PORT, 7077 being the usual port"
        )
    try:
        socket.create_connection((host, int(port)), timeout=MASTER_TIMEOUT_S).close()
    except OSError:
        return False
    return True

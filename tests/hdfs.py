"""A real HDFS on this machine: a NameNode and a DataNode, in processes of their own."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, open_filesystem
from maven import Jar
from standalone import START_TIMEOUT_S, daemon, free_port

SERVER = Jar(
    "org.apache.hadoop",
    "hadoop-client-minicluster",
    "3.3.4",
    "cd8a1703393946c302bb3a52d0fcd23f6f8ded4554bc0dac5d2ee673dbe2b40e",
)
"""Of the Hadoop that Spark brings."""
_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


class Hdfs:
    """A running HDFS, whose NameNode can be stopped and started.

    Attributes:
        uri: of its root, without a slash at its end.
        files: the Python client's.
    """

    def __init__(self, work_dir: Path, environment: dict[str, str], uri: str) -> None:
        self._work_dir, self._environment = work_dir, environment
        self._namenode = contextlib.ExitStack()
        self.uri = uri

    @property
    def files(self) -> Any:
        return open_filesystem(self.uri + "/")[0]

    def put(self, directory: str, name: str) -> str:
        """Copy a directory to one in the root; returns its URI."""
        self.files.put(f"{directory}/", f"/{name}/", recursive=True)
        return f"{self.uri}/{name}"

    def names(self, folder: str) -> list[str]:
        return sorted(path.rpartition("/")[2] for path in self.files.ls(folder, detail=False))

    def start_namenode(self) -> None:
        self._namenode.enter_context(daemon(self._work_dir, _NAMENODE, environment=self._environment))

    def stop_namenode(self) -> None:
        self._namenode.close()


@contextlib.contextmanager
def hdfs_cluster(work_dir: Path, jars: Path) -> Iterator[Hdfs]:
    """Start an empty one, and leave no process behind.

    Args:
        work_dir: takes its blocks and the daemons' output.
        jars: keeps the download.
    """
    port = free_port()
    settings = {
        "fs.defaultFS": f"hdfs://127.0.0.1:{port}",
        "dfs.namenode.name.dir": str(work_dir / "name"),
        "dfs.datanode.data.dir": str(work_dir / "data"),
        "dfs.replication": "1",
        "dfs.namenode.safemode.extension": "0",
        **{f"dfs.{which}": "127.0.0.1:0" for which in ("namenode.http-address", "datanode.address")},
        **{f"dfs.datanode.{which}": "127.0.0.1:0" for which in ("ipc.address", "http.address")},
    }
    conf = work_dir / "conf"
    conf.mkdir()
    for name in ("core-site.xml", "hdfs-site.xml"):
        lines = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in settings.items()]
        (conf / name).write_text("\n".join(["<configuration>", *lines, "</configuration>"]))
    environment = {"HADOOP_CONF_DIR": str(conf), "SPARK_DIST_CLASSPATH": str(SERVER.fetch(jars))}
    with daemon(work_dir, _NAMENODE, "-format", environment=environment) as formatting:
        assert formatting.wait(START_TIMEOUT_S) == 0, f"see *.out in {work_dir}"
    hdfs = Hdfs(work_dir, environment, settings["fs.defaultFS"])
    with daemon(work_dir, _DATANODE, environment=environment):
        hdfs.start_namenode()
        try:
            _wait_until_it_takes_a_file(hdfs, work_dir)
            yield hdfs
        finally:
            hdfs.stop_namenode()


def _wait_until_it_takes_a_file(hdfs: Hdfs, work_dir: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(*FILE_SYSTEM_ERRORS):
            hdfs.files.pipe_file("/taken", b"whole")
            hdfs.files.rm_file("/taken")
            return
        time.sleep(0.3)
    raise TimeoutError(f"no DataNode in {START_TIMEOUT_S} s: see *.out in {work_dir}")

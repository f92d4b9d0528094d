"""Jars from Maven Central, which Ivy, one of Spark's jars, fetches."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pyspark

SPARK_CLASS = Path(pyspark.__file__).parent / "bin/spark-class"


@dataclass(frozen=True)
class Jar:
    """What Maven calls one, and its digest."""

    group: str
    artifact: str
    version: str
    sha256: str

    def fetch(self, to: Path) -> Path:
        """Download it into a directory, where it is not there yet."""
        jar = to / f"{self.artifact}-{self.version}.jar"
        if not jar.exists():
            named = ["-dependency", self.group, self.artifact, self.version, "-notransitive", "-confs", "default"]
            places = ["-cache", str(to / "ivy"), "-retrieve", f"{to}/[artifact]-[revision].[ext]"]
            subprocess.run([str(SPARK_CLASS), "org.apache.ivy.Main", *named, *places], check=True)
        assert hashlib.sha256(jar.read_bytes()).hexdigest() == self.sha256
        return jar

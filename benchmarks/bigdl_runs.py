"""BigDL's own performance program: its GoogLeNet, trained by its DistriOptimizer on one random batch."""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from job_runs import CORES, ROOT

_BIN = Path(sys.executable).parent
_PROGRAM = "com.intel.analytics.bigdl.dllib.models.utils.DistriOptimizerPerf"
_LOGGING = """
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %m%n
"""


@dataclass(frozen=True, kw_only=True)
class Stock:
    """`steps` steps of `batch` images on all cores; unlike ours, its GoogLeNet has response normalisations and
    auxiliary heads, and 1000 classes."""

    engine_type: str
    batch: int
    steps: int = 12

    def __str__(self) -> str:
        network = "GoogLeNet with response normalization, two more heads and 1000 classes"
        return f"DistriOptimizerPerf {self.engine_type}, {network}, {CORES} cores, {self.batch} images, in memory"

    def images_per_second(self) -> float:
        """Of the median step."""
        # mkldnn computes in OpenMP threads of its own; mklblas in one thread of Java a core.
        threads = CORES if self.engine_type == "mkldnn" else 1
        options = f"-Dbigdl.engineType={self.engine_type} -Dbigdl.mklNumThreads={threads}"
        with tempfile.TemporaryDirectory() as scratch:
            logging = Path(scratch) / "log4j2.properties"
            logging.write_text(_LOGGING)
            command: list[str | Path] = [
                *(_BIN / "spark-submit", "--master", f"local[{CORES}]", "--driver-memory", "12g"),
                *("--conf", f"spark.driver.extraJavaOptions={options}", "--class", _PROGRAM),
                next((ROOT / ".venv/lib/python3.11/site-packages/pyspark/jars").glob("bigdl-dllib-*.jar")),
                *("-b", str(self.batch), "-e", str(self.steps), "-t", "float", "-m", "inception_v1", "-d", "random"),
            ]
            path = f"{_BIN}{os.pathsep}{os.environ['PATH']}"
            environment = os.environ | {"PATH": path, "LOG4J_CONFIGURATION_FILE": str(logging)}
            done = subprocess.run(
                command, cwd=scratch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        speeds = re.findall(r"Throughput is ([\d.]+) records/second", done.stdout)
        if done.returncode or len(speeds) < self.steps:
            raise RuntimeError("\n".join(["DistriOptimizerPerf failed", *done.stdout.splitlines()[-30:]]))
        return median(map(float, speeds))

"""The checks of `insitu doctor`: what this machine has, and what to do where that will not work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from insitu.cluster import machine
from insitu.cluster.cpu import cpu_flags

PROBE_TIMEOUT_S = 120
MIN_DISK_GIB = 2
MIN_MEMORY_GIB = 6
CPU_FEATURES = {
    "AVX-512": "avx512f",
    "VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX bf16": "amx_bf16",
    "AMX int8": "amx_int8",
}
_SETUP = "run make setup"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        name: what was looked at.
        found: what is there.
        ok: whether insitu works with it. A slow processor is ok, a missing library is not.
        mend: what to do; empty if ok.
    """

    name: str
    found: str
    ok: bool
    mend: str = ""


def checks(*, quick: bool) -> Iterator[Check]:
    """Examine this machine, one check after the other.

    Args:
        quick: leave out those that load TensorFlow, MKL and petastorm, which take ten seconds.

    Yields:
        A check as soon as it is known.
    """
    yield python()
    yield java()
    yield package("spark", "pyspark", wanted="3.5.")
    yield spark_conf()
    yield bigdl_jars()
    yield package("tensorflow", "tensorflow", wanted="2.15.")
    yield cpu()
    yield Check(name="cores", found=str(machine.usable_cores()), ok=True)
    yield memory()
    yield disk()
    if not quick:
        yield probe("itex", mend=_SETUP)
        yield probe("onednn", mend="unset TF_ENABLE_ONEDNN_OPTS, or set it to 1")
        yield probe("mkl", mend=_SETUP)
        yield spark_mkl()
        yield probe("parquet", mend=_SETUP)


def python() -> Check:
    """Whether this is the Python that the locked packages are for."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] == (3, 11)
    return Check(name="python", found=f"{version} ({sys.executable})", ok=ok, mend="" if ok else _SETUP)


def java() -> Check:
    """The Java that conf/spark-env.sh chooses for every Spark command."""
    script = '. "$1/conf/spark-env.sh" && "$JAVA_HOME/bin/java" -version 2>&1 | head -1 && echo "$JAVA_HOME"'
    mend = "install a Java 17 and set JAVA_HOME, or run make setup"
    if not (_spark_home() / "conf/spark-env.sh").is_file():
        return Check(name="java", found="unknown: Spark's conf/spark-env.sh is missing", ok=False, mend=_SETUP)
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(_spark_home())],
        env=os.environ | {"SPARK_HOME": str(_spark_home()), "INSITU_LOG_DIR": tempfile.gettempdir()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return Check(name="java", found="no Java 17", ok=False, mend=mend)
    version, home = done.stdout.splitlines()
    return Check(name="java", found=f"{version} ({home})", ok=True)


def package(name: str, distribution: str, *, wanted: str) -> Check:
    """Whether a package is installed in the line of versions that `wanted` begins."""
    try:
        found = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        found = "not installed"
    ok = found.startswith(wanted)
    return Check(name=name, found=found, ok=ok, mend="" if ok else f"{_SETUP}: {wanted}x is needed")


def spark_conf() -> Check:
    """Whether spark-submit finds conf/ without a flag."""
    conf = Path(os.environ.get("SPARK_CONF_DIR", _spark_home() / "conf"))
    missing = [
        name for name in ("spark-defaults.conf", "spark-env.sh", "log4j2.properties") if not (conf / name).is_file()
    ]
    if missing:
        return Check(name="spark conf", found=f"no {', '.join(missing)} in {conf}", ok=False, mend=_SETUP)
    return Check(name="spark conf", found=str(conf.resolve()), ok=True)


def bigdl_jars() -> Check:
    """Whether Spark loads BigDL's three jars without a flag."""
    patterns = {"dllib": "bigdl-dllib-*.jar", "orca": "bigdl-orca-*.jar", "core": "all-2.4.*.jar"}
    missing = [name for name, pattern in patterns.items() if not _linked(pattern)]
    if missing:
        return Check(name="bigdl jars", found=f"{', '.join(missing)} missing beside Spark's own", ok=False, mend=_SETUP)
    return Check(name="bigdl jars", found="dllib, orca, core", ok=True)


def cpu() -> Check:
    """The instruction sets that decide the speed: a processor without them is slow, not broken."""
    found = [name for name, flag in CPU_FEATURES.items() if flag in cpu_flags()]
    return Check(name="cpu", found=", ".join(found) or "no AVX-512: several times slower", ok=True)


def memory() -> Check:
    """Whether the driver's Java heap and one TensorFlow worker fit."""
    gib = machine.usable_memory_bytes() / machine.GIB
    ok = gib >= MIN_MEMORY_GIB
    mend = "" if ok else f"{MIN_MEMORY_GIB} GiB are needed: raise the container's limit or use a larger machine"
    return Check(name="memory", found=f"{gib:.1f} GiB", ok=ok, mend=mend)


def disk() -> Check:
    """Whether Spark has room for what it spills."""
    directory = os.environ.get("SPARK_LOCAL_DIRS", os.environ.get("TMPDIR", "/tmp")).split(",")[0]
    gib = shutil.disk_usage(directory).free / machine.GIB
    ok = gib >= MIN_DISK_GIB
    mend = "" if ok else f"{MIN_DISK_GIB} GiB are needed: free some, or set SPARK_LOCAL_DIRS to a larger disk"
    return Check(name="disk", found=f"{gib:.1f} GiB free in {directory}", ok=ok, mend=mend)


def spark_mkl() -> Check:
    """Whether Spark's Java computes with MKL; with a wrong path MLlib would take Java's own BLAS without a word."""
    command = [str(_spark_home() / "bin/spark-submit"), "--class", "insitu.recommend.als.Mkl", "spark-internal"]
    return _run("spark mkl", command, mend=f"{_SETUP}, and unset INSITU_MKL")


def probe(name: str, *, mend: str) -> Check:
    """Run one of `insitu.cluster.probes`."""
    return _run(name, [sys.executable, "-m", "insitu.cluster.probes", name], mend=mend)


def _run(name: str, command: list[str], *, mend: str) -> Check:
    """The last line that a process of its own prints, so that a crash or a hang is a finding."""
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "ITEX_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=quiet)
    except subprocess.TimeoutExpired:
        return Check(name=name, found=f"no answer in {PROBE_TIMEOUT_S} s", ok=False, mend=mend)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return Check(name=name, found=reason, ok=False, mend=mend)
    return Check(name=name, found=done.stdout.strip().splitlines()[-1], ok=True)


def _spark_home() -> Path:
    """Where spark-submit finds Spark: SPARK_HOME, else the pyspark package, which is not imported for it."""
    spec = util.find_spec("pyspark")
    installed = spec.origin if spec and spec.origin else "pyspark/missing"
    return Path(os.environ.get("SPARK_HOME", Path(installed).parent))


def _linked(pattern: str) -> bool:
    return any(jar.is_file() for jar in (_spark_home() / "jars").glob(pattern))

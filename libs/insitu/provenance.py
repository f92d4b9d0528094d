"""Where a model comes from: what `provenance.json` says of a run."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from insitu.cluster.cpu import cpu_flags

_PACKAGES = (
    "insitu",
    "tensorflow",
    "intel-extension-for-tensorflow",
    "pyspark",
    "bigdl-orca-spark3",
    "numpy",
    "pyarrow",
    "petastorm",
    "openvino",
    "nncf",
    "pillow",
)
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def code_version() -> dict[str, str]:
    """The package's version, with the commit and whether files were changed where it runs from a checkout."""
    found = {"insitu": version("insitu")}
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found["commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = "unknown: not a git checkout"
    return found


def environment() -> dict[str, Any]:
    """The software and the processor of the driver."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_flags": [flag for flag in _TELLING_FLAGS if flag in cpu_flags()],
        "cores": len(os.sched_getaffinity(0)),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""`make setup` on machines where it cannot work: one clear line, and nothing that looks finished."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLOSED_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": ""}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a fresh clone as set-up reads."""
    for name in ("requirements", "conf", "jvm", "native"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("Makefile", "setup.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make_setup(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--silent", "setup"],
        cwd=clone,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_wrong_python(clone: Path) -> None:
    done = make_setup(clone, PYTHON="/bin/false")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "setup: /bin/false: no Python 3.11 there; install it, or name one with make PYTHON=/path/to/python3.11"
    )
    assert not (clone / ".venv").exists()


def test_no_network_after_an_interrupted_setup(clone: Path) -> None:
    """Setup begins anew, and ends with a line that says what is missing."""
    leftover = clone / ".venv/half-installed"
    leftover.mkdir(parents=True)
    done = make_setup(clone, PYTHON=sys.executable, **CLOSED_INDEX)
    assert done.returncode != 0
    assert done.stderr.splitlines()[1].startswith("setup: network: the package index cannot be reached;")
    assert not (clone / ".venv/complete-runtime").exists()
    assert not leftover.exists()

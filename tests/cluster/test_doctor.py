"""`insitu doctor` on this machine, and on ones where a part is broken."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from insitu.cluster import doctor, preflight


def run_doctor(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(argv))


def test_everything_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    code = run_doctor("--json")
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    assert report["ok"]
    assert [check["name"] for check in report["checks"]] == [
        *("python", "java", "spark", "spark conf", "bigdl jars", "tensorflow", "cpu", "cores", "memory", "disk"),
        *("itex", "onednn", "mkl", "spark mkl", "parquet"),
    ]
    found = {check["name"]: check["found"] for check in report["checks"]}
    assert re.fullmatch(r"libmkl_\S+, .*als-avx\w+\.so", found["spark mkl"])


def test_quick_leaves_out_what_loads_tensorflow(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor("--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.endswith("ok") for line in lines)


def test_broken_spark_is_named_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert run_doctor("--quick") == 1
    broken = [line for line in capsys.readouterr().out.splitlines() if "BROKEN" in line]
    assert [line[:12].strip() for line in broken] == ["java", "spark conf", "bigdl jars"]
    assert all("run make setup" in line for line in broken)


def test_missing_package() -> None:
    check = preflight.package("spark", "no-such-distribution", wanted="3.5.")
    assert not check.ok
    assert (check.found, check.mend) == ("not installed", "run make setup: 3.5.x is needed")


def test_onednn_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    check = preflight.probe("onednn", mend="turn it on")
    assert not check.ok
    assert "without oneDNN" in check.found
    assert check.mend == "turn it on"


@pytest.mark.parametrize("library", ["/missing/libmkl_rt.so.3", "libm.so.6"])
def test_a_library_that_is_no_mkl(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Spark itself would take Java's BLAS in its place, and say nothing."""
    monkeypatch.setenv("INSITU_MKL", library)
    check = preflight.spark_mkl()
    assert not check.ok
    assert library in check.found
    assert "INSITU_MKL" in check.mend


def test_doctor_imports_nothing_heavy() -> None:
    code = "import sys, insitu.cluster.doctor; print(sorted({'tensorflow', 'pyspark', 'petastorm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

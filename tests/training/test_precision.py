"""The precision that a run of Orca gets; what the executors' processors can do is told by a stand-in."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import insitu
from insitu.data.opened import open_data
from insitu.errors import UserError
from insitu.recipe import parse
from insitu.training.engines import orca
from insitu.training.engines.base import Layout, Precision
from training.digits_rows import digit_rows, recipe_tree, write_rows

AVX2, AVX512, AMX = "avx2", "avx2 avx512f avx512bw avx512dq avx512vl", "avx512f avx512bw avx512dq avx512vl amx_bf16"


def precision(spark: SparkSession, folder: Path, asked: str, begun: Precision | None) -> str:
    layout = Layout(workers=1, workers_per_executor=1, threads=1)
    recipe = parse(recipe_tree(precision=asked))
    opened = open_data(recipe, write_rows(folder / "data", digit_rows()))
    return orca.OrcaEngine(spark).settle(recipe, layout, opened, begun=begun).training.precision


@pytest.mark.parametrize(
    ("flags", "asked", "begun", "expected"),
    [
        (AVX2, "auto", None, "fp32"),
        (AVX512, "auto", None, "fp32"),
        (AMX, "auto", None, "bf16"),
        (AMX, "auto", "fp32", "fp32"),
        (AVX512, "auto", "bf16", "bf16"),
        (AVX512, "bf16", None, "bf16"),
        (AMX, "fp32", None, "fp32"),
    ],
)
def test_precision_is_what_is_asked_or_was_begun_or_is_faster(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    asked: str,
    begun: Precision | None,
    expected: str,
) -> None:
    monkeypatch.setattr(orca, "executors_cpu_flags", lambda session: frozenset(flags.split()))
    assert precision(spark, tmp_path, asked, begun) == expected


def test_run_begun_in_bf16_is_not_gone_on_with_where_there_is_none(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orca, "executors_cpu_flags", lambda session: frozenset(AVX2.split()))
    with pytest.raises(UserError, match=r"training\.precision: bf16, and not every .*; go on with the run where all"):
        precision(spark, tmp_path, "auto", "bf16")


def test_bf16_without_avx512_is_refused_before_a_row_is_read(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(orca, "executors_cpu_flags", lambda session: frozenset(AVX2.split()))
    data = write_rows(tmp_path / "data", digit_rows())
    with pytest.raises(UserError, match=r"training\.precision: bf16, and not every executor's processor .*; take auto"):
        insitu.train(spark, parse(recipe_tree(precision="bf16")), data=data, output=str(tmp_path / "model"))
    assert "checking" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

"""An output file system that is full or away while a run writes to it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

import insitu
from insitu.errors import UserError
from insitu.recipe import parse
from training.digits_rows import digit_rows, recipe_tree, write_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(small_disk: Callable[[str], Path]) -> Path:
    return small_disk("100m")


@pytest.fixture(params=["orca", "bigdl"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_rows(tmp_path / "data", digit_rows(train=640, validation=33))


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out, pytest.raises(OSError, match="No space left"):
        while True:
            out.write(bytes(2**16))
    return filler


@pytest.mark.parametrize("full_from", ["step", "checkpoint"])
def test_full_disk_costs_checkpoints_and_no_training(
    spark: SparkSession, engine: str, disk: Path, data: str, full_from: str
) -> None:
    """Full from the first such event on; free again after a checkpoint has failed."""
    errors: list[str | None] = []

    def squeeze(event: dict[str, Any]) -> None:
        if event["event"] == full_from and not any(errors) and not (disk / "filler").exists():
            fill(disk)
        if event["event"] == "checkpoint":
            errors.append(event["error"])
            if event["error"]:
                (disk / "filler").unlink(missing_ok=True)

    tree = recipe_tree(engine=engine, epochs=8, checkpoint={"every_steps": 20})
    insitu.train(spark, parse(tree), data=data, output=str(disk / "model"), listener=squeeze)
    assert errors[-1] is None
    assert any("No space left on device" in error for error in errors if error)
    assert [path.name for path in disk.iterdir()] == ["model"]
    assert insitu.load(str(disk / "model"))


def test_disk_that_is_full_at_the_end_is_told_and_training_is_kept(
    spark: SparkSession, engine: str, disk: Path, data: str
) -> None:
    def squeeze(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] == 40:
            fill(disk)

    output = str(disk / "model")
    tree = parse(recipe_tree(engine=engine, epochs=2, checkpoint={"every_steps": 40}))
    with pytest.raises(UserError, match=r"--output: .*No space left.*; free space .* with --resume"):
        insitu.train(spark, tree, data=data, output=output, listener=squeeze)
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "model.run"]
    (disk / "filler").unlink()
    summary = insitu.train(spark, tree, data=data, output=output, resume=True, listener=lambda event: None)
    assert (summary["resumed_from_step"], summary["steps"]) == (40, 40)
    assert [path.name for path in disk.iterdir()] == ["model"]


def test_output_that_is_away_at_the_end_is_waited_for(
    spark: SparkSession, engine: str, tmp_path: Path, data: str
) -> None:
    """Away from the last epoch on, and back within the seconds between two tries."""
    output, away = tmp_path / "output", tmp_path / "away"
    output.mkdir()

    def come_back() -> None:
        output.unlink()
        away.rename(output)

    def unplug(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            output.rename(away)
            output.write_text("in its place")
            threading.Timer(5, come_back).start()

    tree = recipe_tree(engine=engine, epochs=1, max_restarts=0)
    insitu.train(spark, parse(tree), data=data, output=str(output / "model"), listener=unplug)
    assert [path.name for path in output.iterdir()] == ["model"]
    assert insitu.load(str(output / "model"))


def test_file_system_that_goes_away_and_comes_back(spark: SparkSession, engine: str, tmp_path: Path, data: str) -> None:
    output, away = tmp_path / "output", tmp_path / "away"
    output.mkdir()
    errors: list[str | None] = []

    def unplug(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            errors.append(event["error"])
            if len(errors) == 1:
                output.rename(away)
                output.write_text("in its place")
            elif away.exists():
                output.unlink()
                away.rename(output)

    tree = recipe_tree(engine=engine, epochs=8, checkpoint={"every_steps": 20})
    insitu.train(spark, parse(tree), data=data, output=str(output / "model"), listener=unplug)
    assert errors[0] is None and errors[1] is not None and errors[-1] is None
    assert [path.name for path in output.iterdir()] == ["model"]
    assert insitu.load(str(output / "model"))

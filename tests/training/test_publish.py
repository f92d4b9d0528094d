"""What a model directory takes from the run's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from insitu.training.publish import fetch_record
from insitu.training.rundir import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    run = RunDirectory(f"file://{tmp_path}/model")
    with run.opened(resume=False):
        (tmp_path / "model.run/steps.jsonl").write_text("{}\n")
        (tmp_path / "model.run/tensorboard").mkdir()
        (tmp_path / "model.run/tensorboard/events").write_text("")
        (tmp_path / "directory").mkdir()
        yield run


def test_record_is_taken_over(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_record(run, tmp_path / "directory")
    assert (tmp_path / "directory/steps.jsonl").read_text() == "{}\n"
    assert (tmp_path / "directory/tensorboard/events").exists()
    assert capsys.readouterr().err == ""


def test_record_is_taken_over_by_the_second_try(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "directory/tensorboard").mkdir()
    (tmp_path / "directory/tensorboard/events").write_text("hal")
    fetch_record(run, tmp_path / "directory")
    assert [path.name for path in (tmp_path / "directory/tensorboard").iterdir()] == ["events"]
    assert (tmp_path / "directory/tensorboard/events").read_text() == ""


def test_record_that_could_not_be_written_costs_no_model(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.run/steps.jsonl").unlink()
    shutil.rmtree(tmp_path / "model.run/tensorboard")
    fetch_record(run, tmp_path / "directory")
    assert (tmp_path / "directory/steps.jsonl").read_text() == ""
    said = capsys.readouterr().err
    assert "model.run has no steps.jsonl: the model is published without" in said
    assert "model.run has no tensorboard: the model is published without" in said


def test_record_that_is_away_is_no_missing_one(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "model.run").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        fetch_record(run, tmp_path / "directory")

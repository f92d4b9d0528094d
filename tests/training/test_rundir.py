"""The directory of an unfinished run: who may go on with it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from insitu.cluster import lock
from insitu.errors import UserError
from insitu.recipe import Recipe, parse
from insitu.training.rundir import RunDirectory
from training.digits_rows import recipe_tree

ROWS = {"train": 90, "validation": 10}


def recipe(**training: Any) -> Recipe:
    return parse(recipe_tree(**{"workers": 2, **training}))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run of two workers."""
    run = RunDirectory(f"file://{tmp_path}/model")
    with run.opened(resume=False):
        run.claim(recipe(), "fingerprint", {}, rows=ROWS, threads=2)
        yield run


def begin(tmp_path: Path, *, resume: bool) -> RunDirectory:
    """Open a run as a job that ends at once."""
    run = RunDirectory(f"file://{tmp_path}/model")
    with run.opened(resume=resume):
        return run


def test_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    assert begin(tmp_path, resume=False).is_new
    with pytest.raises(UserError, match=r"--output: an unfinished run is at file://.*/model\.run, .* add --resume"):
        begin(tmp_path, resume=False)
    assert not begin(tmp_path, resume=True).is_new


def test_directory_that_is_no_runs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.run").mkdir()
    (tmp_path / "model.run/precious").write_text("")
    with pytest.raises(UserError, match=r"model\.run is not the directory of a run"):
        begin(tmp_path, resume=True)
    assert [place.name for place in (tmp_path / "model.run").iterdir()] == ["precious"]


def test_run_of_a_living_process_is_not_joined(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"is being written by another job \(.*, process {os.getpid()}, since .*; wait"
    ):
        begin(tmp_path, resume=True)


def test_run_that_another_job_took_over_is_left_to_it(run: RunDirectory, tmp_path: Path) -> None:
    held = tmp_path / "model.run/lock"
    held.write_text(json.dumps(json.loads(held.read_text()) | {"id": "another's", "host": "node7"}))
    with pytest.raises(UserError, match=r"--output: .*model\.run was taken over by another job \(.* on node7, "):
        run.scratch()
    assert held.exists() and not list((tmp_path / "model.run").glob("gang-*"))
    run.discard()
    assert held.exists()


def test_of_two_jobs_at_once_one_begins_and_the_other_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_WRITING_SECONDS", 0.05)
    for attempt in range(100):
        runs = [RunDirectory(f"file://{tmp_path}/{attempt}") for _ in range(2)]
        together = threading.Barrier(2)

        def work(run: RunDirectory, together: threading.Barrier = together) -> None:
            together.wait()
            with run.opened(resume=False):
                time.sleep(0.01)

        with ThreadPoolExecutor(2) as threads:
            errors = [begun.exception() for begun in [threads.submit(work, run) for run in runs]]
        assert sorted(run.is_new for run in runs) == [False, True]
        assert [type(error) for error in errors if error] == [UserError]
        assert (tmp_path / f"{attempt}.run/run.json").exists()


def test_nothing_to_resume_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, resume=True)
    assert "nothing to resume at file://" in capsys.readouterr().err
    assert (tmp_path / "model.run").is_dir()


def test_damaged_note_of_the_run_costs_the_comparison_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, resume=False)
    (tmp_path / "model.run/run.json").write_text("")
    assert not begin(tmp_path, resume=True).is_new
    assert "model.run/run.json is damaged (Expecting value" in capsys.readouterr().err


def test_precision_is_that_of_the_run(run: RunDirectory) -> None:
    assert run.precision == "fp32"


def test_same_recipe_and_data_go_on_without_a_word(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    run.claim(recipe(), "fingerprint", {}, rows=ROWS, threads=2)
    assert capsys.readouterr().err == ""


def test_other_data_is_refused(run: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"--data: it is not the dataset that the run began with"):
        run.claim(recipe(), "another", {}, rows=ROWS, threads=2)


def test_other_good_rows_are_refused(run: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"--data: its good rows are .*'train': 89.*, and were .*'train': 90"):
        run.claim(recipe(), "fingerprint", {}, rows=ROWS | {"train": 89}, threads=2)


def test_changed_additions_are_refused(run: RunDirectory) -> None:
    run.claim(recipe(), "fingerprint", {"file:///labelled": "before"}, rows=ROWS, threads=2)
    run.claim(recipe(), "fingerprint", {"file:///labelled": "before"}, rows=ROWS, threads=2)
    with pytest.raises(UserError, match=r"data\.additions: file:///labelled does not hold the files that the run "):
        run.claim(recipe(), "fingerprint", {"file:///labelled": "after"}, rows=ROWS, threads=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, r"training\.seed: 3, and the run began with 17; resume with"),
        ({"optimizer": {"name": "adadelta", "learning_rate": 0.001}}, r"training\.optimizer\.name: adadelta, and"),
        ({"early_stopping": {"patience_epochs": 2}}, r"training\.early_stopping.*: .*and the run began with"),
    ],
)
def test_other_recipe_is_refused_by_its_key(run: RunDirectory, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run.claim(recipe(**change), "fingerprint", {}, rows=ROWS, threads=2)


def test_more_epochs_and_other_workers_go_on_and_it_is_said_what_changes(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    run.claim(recipe(epochs=9, workers=4), "fingerprint", {}, rows=ROWS, threads=2)
    said = capsys.readouterr().err
    assert "resume: training.epochs was 2, is 9" in said
    assert "resume: training.workers was 2, is 4" in said
    assert "some are read twice" in said
    assert "local batches of 8 images, before 16" in said


def test_other_threads_and_another_cache_go_on_and_are_said(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe_tree(workers=2)
    tree["data"]["cache_mib"] = 64
    run.claim(parse(tree), "fingerprint", {}, rows=ROWS, threads=8)
    said = capsys.readouterr().err
    assert "resume: data.cache_mib was 0, is 64" in said
    assert "resume: a worker computes with 8 threads, before 2: sums are added\nin another order" in said


def test_other_kernels_of_bigdl_go_on_and_are_said(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """What `auto` is depends on the executors."""
    run.claim(recipe(bigdl={"engine_type": "mkldnn"}), "fingerprint", {}, rows=ROWS, threads=2)
    capsys.readouterr()
    run.claim(recipe(bigdl={"engine_type": "mklblas"}), "fingerprint", {}, rows=ROWS, threads=2)
    assert "resume: training.bigdl.engine_type was mkldnn, is mklblas" in capsys.readouterr().err


def test_gang_begins_without_what_earlier_ones_left(run: RunDirectory, tmp_path: Path) -> None:
    checkpoints = tmp_path / "model.run/checkpoints"
    for left in ("step-0000000005", ".step-0000000010.0123abcd"):
        (checkpoints / left).mkdir(parents=True)
        (checkpoints / left / "weights.npz").write_text("")
    first = run.scratch()
    (Path(first.removeprefix("file://")) / "weights.npz").write_text("")
    second = run.scratch(kept=f"{first}/weights.npz")
    third = run.scratch(kept=f"{first}/weights.npz")
    gangs = {f"file://{place}" for place in (tmp_path / "model.run").glob("gang-*")}
    assert gangs == {first, third} and second not in gangs
    assert [place.name for place in checkpoints.iterdir()] == ["step-0000000005"]


def test_a_full_file_system_is_told_and_nothing_is_left(small_disk: Callable[[str], Path]) -> None:
    place = small_disk("64k")
    with pytest.raises(OSError), (place / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
    with pytest.raises(UserError, match=r"--output: .*model\.run cannot be made \(.*No space left"):
        begin(place, resume=False)
    assert not (place / "model.run").exists()

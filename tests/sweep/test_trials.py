"""Sweeps in this process: what they refuse, what they draw, and a trial that fails."""

import json
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pyspark.sql import SparkSession

from insitu.errors import UserError
from insitu.sweep import trials
from insitu.sweep.results import Results
from insitu.sweep.space import parse_space
from insitu.sweep.trials import sweep
from sweep.swept import BATCH, recipe_and_data, rows
from training.killing_job import Killer


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return recipe_and_data(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize(
    ("entries", "random", "problem"),
    [
        ([("--grid", "training.epocs=1,2")], None, r"training\.epocs: unknown key; did you mean epochs\?"),
        ([("--grid", "training.epochs=1,0")], None, r"training\.epochs: .*greater than 0, got 0"),
        ([("--grid", "model.name=squeezenet,squeezent")], None, r"model\.name: no topology 'squeezent'"),
        ([("--grid", "model.normalization=none,group")], None, r"model\.normalization: squeezenet cannot have 'group'"),
        ([("--range", "training.seed=1:9")], None, "--range: a grid has no ranges; add --random N"),
        ([("--range", "training.global_batch=-4:0")], 3, r"training\.global_batch: "),
        ([("--grid", BATCH)], 0, "--random: expected a number of trials, got 0; give 1 or more"),
    ],
)
def test_no_trial_runs_where_one_is_wrong(
    entries: list[tuple[str, str]],
    random: int | None,
    problem: str,
    spark: SparkSession,
    given: dict[str, Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=problem):
        sweep(spark, **given, output=str(tmp_path / "sweep"), space=parse_space(entries), random=random)
    assert list(tmp_path.iterdir()) == []


def test_summary_tells_what_of_a_trial_was_not_done() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(3):
        trial = study.ask()
        if number:
            trial.set_user_attr("not_done", f"no report of {number}")
        study.tell(trial, 0.5)
    assert Results(study, {}, "accuracy").summary()["not_done"] == "no report of 1; no report of 2"


@pytest.mark.parametrize(("rows", "alike"), [(["a", "a"], True), (["a", "b"], False), ([], True)])
def test_trials_on_other_validation_rows_are_not_alike(rows: list[str], alike: bool) -> None:
    study = optuna.create_study(direction="maximize")
    for validated in rows:
        trial = study.ask()
        trial.set_user_attr("validated", validated)
        study.tell(trial, 0.5)
    assert Results(study, {}, "accuracy").validated_alike() == alike


@pytest.mark.nightly
def test_a_trial_whose_worker_dies_too_often_costs_no_other(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    """And is resumed by the same command."""
    gateway: Any = spark.sparkContext._gateway
    killer = Killer([(1, "training")], spark.sparkContext.applicationId, psutil.Process(gateway.proc.pid))

    def kill_after_a_checkpoint(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            killer({"event": "step", "step": event["step"]})

    arguments: dict[str, Any] = {
        **given,
        "settings": ["training.epochs=3", "training.max_restarts=0", "training.checkpoint.every_steps=1"],
        "output": str(tmp_path / "sweep"),
        "space": parse_space([("--grid", "training.seed=1,2")]),
        "listener": kill_after_a_checkpoint,
    }
    summary = sweep(spark, **arguments)
    assert (summary["trials"], summary["failed"]) == (2, 1)
    first, second = sorted(rows(tmp_path / "sweep"), key=lambda row: row["trial"])
    assert first["status"].endswith(
        "exit code 137 (SIGKILL): someone or a resource manager killed it; the kernel was not out of memory"
    )
    assert second["status"] == "complete"
    summary = sweep(spark, **arguments)
    assert (summary["trials"], summary["failed"]) == (2, 0)
    again, same = sorted(rows(tmp_path / "sweep"), key=lambda row: row["trial"])
    assert (again["status"], again["training.seed"], same) == ("complete", first["training.seed"], second)
    provenance = json.loads((Path(again["output"].removeprefix("file://")) / "provenance.json").read_text())
    assert [driver["first_step"] for driver in provenance["drivers"]] == [0, provenance["run"]["resumed_from_step"]]


@pytest.mark.parametrize(
    ("cause", "line"),
    [
        ("rank 0 on a: exit code 137", "rank 0 on a: exit code 137"),
        (
            "rank 0 on a:\nTraceback (most recent call last):\n  File x, line 3\n    run()\nKeyError: 'b'\n",
            "rank 0 on a: KeyError: 'b'",
        ),
        (
            "rank 0 on a:\njava.lang.X: no\n\tat x.Y\nCaused by: java.io.Z: full\n\tat z\n\nDriver stacktrace:",
            "rank 0 on a: Caused by: java.io.Z: full",
        ),
    ],
    ids=["a line", "Python", "Java"],
)
def test_a_reason_is_who_failed_and_of_what(cause: str, line: str) -> None:
    assert trials._in_a_line(cause) == line


def test_a_directory_that_is_no_sweep_is_left_alone(spark: SparkSession, given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--output: .* exists; name a new directory"):
        sweep(spark, **given, output=str(tmp_path), space=parse_space([("--grid", BATCH)]))


def test_a_grid_has_every_combination_once(spark: SparkSession, given: dict[str, Any], tmp_path: Path) -> None:
    """The sweep ends in its first trial: there is no such data."""
    space = parse_space([("--grid", "training.global_batch=8,16,32"), ("--grid", "training.precision=fp32,bf16")])
    nothing = given | {"data": str(tmp_path / "absent")}
    with pytest.raises(UserError, match="--data"):
        sweep(spark, **nothing, output=str(tmp_path / "sweep"), space=space)
    found = [tuple(params[key] for key in space) for params in drawn(tmp_path / "sweep")]
    assert sorted(found) == [(batch, precision) for batch in (8, 16, 32) for precision in ("bf16", "fp32")]


def test_random_search_draws_within_the_ranges_and_the_same_again(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    """Both sweeps end in their first trial: there is no such data."""
    rate = "training.optimizer.learning_rate"
    space = parse_space([("--range", f"{rate}=0.0001:0.1:log"), ("--grid", "training.seed=1,2")])
    arguments: dict[str, Any] = {
        "recipe": given["recipe"],
        "data": str(tmp_path / "absent"),
        "space": space,
        "random": 5,
    }
    for name in ("first", "second"):
        with pytest.raises(UserError, match="--data"):
            sweep(spark, output=str(tmp_path / name), **arguments)
    first, second = drawn(tmp_path / "first"), drawn(tmp_path / "second")
    assert first == second
    assert len({params[rate] for params in first}) == 5
    assert all(0.0001 <= params[rate] <= 0.1 for params in first)
    assert {params["training.seed"] for params in first} <= {1, 2}


def drawn(output: Path) -> list[dict[str, Any]]:
    """The settings of a sweep's trials, none of which ran."""
    storage = JournalStorage(JournalFileBackend(str(output / "sweep.journal")))
    return [
        trial.system_attrs["fixed_params"] for trial in optuna.load_study(study_name="sweep", storage=storage).trials
    ]

"""What a real MLflow server knows of trainings and promotions, and what is lost when it dies: nothing."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from pyspark.sql import SparkSession

import insitu
from conftest import ROOT
from insitu import artifact
from insitu.errors import UserError
from insitu.recipe import parse
from insitu.registry import Registry
from insitu.scoring.promote import log, roll_back
from insitu.tracking import Tracking, TrackingError
from mlflow_server import MlflowServer, mlflow_server
from report.trained_runs import digit_rows, write_run
from training.digits_rows import digit_rows as digit_columns
from training.digits_rows import recipe_tree, write_rows

EPOCHS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture
def tracking(server: MlflowServer, request: pytest.FixtureRequest) -> Tracking:
    """An experiment and a registered model of the test's own."""
    name = request.node.name
    return Tracking(server.uri, experiment=f"experiment of {name}", registered_model=f"{name}, o'hare's")


@pytest.fixture
def client(server: MlflowServer) -> MlflowClient:
    return MlflowClient(server.uri, server.uri)


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own settings of MLflow count."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def write_trained(directory: Path, name: str, *, page: str = "report") -> Path:
    """A model directory's text files; the network is not looked at."""
    source = directory / f"{name} source"
    (source / "report").mkdir(parents=True)
    rows = digit_rows(40)
    auc = dict.fromkeys(rows.class_names, 0.5) | {"0": None}
    history = [
        {
            **{"epoch": epoch, "step": 5 * (epoch + 1), "loss": 1.0 / (epoch + 1), "learning_rate": 1e-3},
            "images_per_second": 50.0,
            "validation": {"loss": 0.5, "accuracy": 0.25 * (epoch + 1), "auc": auc, "auc_macro": 0.5},
        }
        for epoch in range(EPOCHS)
    ]
    write_run(source, rows, history, steps_per_epoch=5, name="squeezenet")
    (source / artifact.MODEL).write_text(name)
    (source / "report/index.html").write_text(page)
    artifact.publish(source, f"file://{directory}/{name}")
    return directory / name


def job(directory: Path) -> list[str]:
    """A training of seconds, from its command line."""
    data, recipe = write_rows(directory / "data", digit_columns()), directory / "recipe.yaml"
    recipe.write_text(parse(recipe_tree(epochs=1)).to_yaml())
    return ["jobs/train_cnn.py", "--recipe", str(recipe), "--data", data, "--output", str(directory / "model")]


def named(tracking: Tracking) -> list[str]:
    assert tracking.registered_model
    return ["--experiment", tracking.experiment, "--registered-model", tracking.registered_model]


def only_run(client: MlflowClient, tracking: Tracking) -> Run:
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_a_training_is_a_run_and_a_version(client: MlflowClient, tracking: Tracking, tmp_path: Path) -> None:
    directory = write_trained(tmp_path, "model")
    logged = tracking.log_training(str(directory))
    run, identity = only_run(client, tracking), artifact.identity(str(directory))
    assert (run.info.run_id, run.info.status, run.info.run_name) == (logged["run_id"], "FINISHED", "model")
    assert run.info.end_time - run.info.start_time == 312_500
    assert run.data.params["training.optimizer.name"] == "adam"
    assert run.data.params["task.classes"] == json.dumps(list(map(str, range(10))))
    assert run.data.metrics["final.accuracy"] == run.data.metrics["validation.accuracy"] == 0.75
    assert "final.auc.0" not in run.data.metrics
    points = client.get_metric_history(logged["run_id"], "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert run.data.tags["insitu.identity"] == identity
    assert run.data.tags["insitu.uri"] == f"file://{directory}"
    assert run.data.tags["insitu.data_fingerprint"].startswith("9c1185a5")
    assert run.data.tags["insitu.commit"].startswith("733a629c")
    files = {entry.path for entry in client.list_artifacts(logged["run_id"])}
    assert files == {"recipe.yaml", "metrics.json", "provenance.json", "report.html"}
    assert tracking.registered_model
    version = client.get_model_version(tracking.registered_model, logged["version"])
    assert (version.run_id, version.tags["insitu.identity"]) == (logged["run_id"], identity)
    assert version.tags["insitu.uri"] == f"file://{directory}"
    assert version.source == run.info.artifact_uri, "MLflow refuses a path of its own disk"


def test_a_version_of_another_file_system_has_the_directory_as_its_source(
    client: MlflowClient, tracking: Tracking, tmp_path: Path
) -> None:
    directory, uri = write_trained(tmp_path, "model"), "memory://models/nightly"
    fsspec.filesystem("memory").put(f"{directory}/", "/models/nightly/", recursive=True)
    logged = tracking.log_training(uri)
    assert tracking.registered_model
    assert client.get_model_version(tracking.registered_model, logged["version"]).source == uri


def test_logging_again_completes_and_repeats_nothing(
    client: MlflowClient, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(write_trained(tmp_path, "model"))
    with monkeypatch.context() as interrupted:

        def fail(*_: object) -> None:
            raise ConnectionError("gone")

        interrupted.setattr(MlflowClient, "log_text", fail)
        with pytest.raises(TrackingError, match="gone"):
            tracking.log_training(directory)
    assert only_run(client, tracking).info.status == "RUNNING"
    first, second = (tracking.log_training(directory) for _ in range(2))
    assert first == second
    assert only_run(client, tracking).info.status == "FINISHED"
    assert len(client.get_metric_history(first["run_id"], "loss")) == EPOCHS
    assert len(client.search_model_versions(f'name = "{tracking.registered_model}"')) == 1


def test_promotion_and_rollback_move_the_aliases(client: MlflowClient, tracking: Tracking, tmp_path: Path) -> None:
    home = Registry(f"file://{tmp_path}/registry", setting="--registry")
    names = []
    for word in ("first", "second"):
        directory = write_trained(tmp_path, word)
        record = {
            "id": word,
            "promoted": "2024-02-29T01:02:03Z",
            "limits": {"max_drop": 0.0},
            "code": {"commit": "abc"},
            "holdout": {"uri": "holdout", "fingerprint": "f", "rows": 9, "candidate": 0.75, "metrics": {"a": 0.5}},
            "replay": None,
        }
        names.append(home.promote(directory, record, compared_with=home.standing()).current)
        summary = log(home.uri, tracking)
        assert "not_done" not in summary

    def aliased(alias: str) -> str:
        assert tracking.registered_model
        version = client.get_model_version_by_alias(tracking.registered_model, alias)
        assert version.tags["insitu.uri"] == home.version(f"{version.version:0>4}-{version.tags['insitu.identity']}")
        return version.tags["insitu.uri"].rpartition("/")[2]

    assert [aliased("current"), aliased("previous")] == names[::-1]
    roll_back(home.uri, tracking=tracking)
    assert [aliased("current"), aliased("previous")] == names
    run = client.get_run(summary["mlflow"]["run_id"])
    assert run.info.run_name == f"promote {names[1]}"
    assert run.data.metrics == {"holdout.candidate": 0.75}
    assert run.data.params["limits.max_drop"] == "0.0"
    assert [entry.path for entry in client.list_artifacts(run.info.run_id)] == ["promotion.json"]


def test_the_training_job_logs_what_it_published(
    spark: SparkSession, run_here: Callable, client: MlflowClient, tracking: Tracking, tmp_path: Path
) -> None:
    summary = run_here(*job(tmp_path), "--tracking-uri", tracking.uri, *named(tracking))
    logged = only_run(client, tracking)
    assert summary["mlflow"] == {"run_id": logged.info.run_id, "version": "1"}
    assert logged.data.metrics["final.accuracy"] == summary["metrics"]["accuracy"]
    assert "report.html" in {entry.path for entry in client.list_artifacts(logged.info.run_id)}


@pytest.mark.slow
def test_a_server_that_is_away_ends_the_job_and_one_that_dies_in_the_night_costs_no_model(
    spark: SparkSession,
    server: MlflowServer,
    client: MlflowClient,
    tracking: Tracking,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does a report that cannot be drawn in the same night; both are told."""

    def no_font(*_: object, **__: object) -> None:
        raise OSError("no font")

    monkeypatch.setattr("insitu.report.write_report", no_font)
    data, output = write_rows(tmp_path / "data", digit_columns()), str(tmp_path / "model")

    def listener(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            server.stop()

    recipe = parse(recipe_tree(epochs=1))
    with pytest.raises(
        UserError, match=r"--tracking-uri: the MLflow server http://127\.0\.0\.1:9 does not take runs \("
    ):
        insitu.train(spark, recipe, data=data, output=output, tracking=Tracking("http://127.0.0.1:9"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    try:
        summary = insitu.train(spark, recipe, data=data, output=output, listener=listener, tracking=tracking)
    finally:
        server.start()
    assert summary["mlflow"] is None
    assert insitu.load(output)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("model")] == ["model"]
    told, _, command = summary["not_done"].partition("; run ")
    undrawn, unlogged = told.split("; file://")
    assert undrawn.startswith(f"file://{output} is published, but its report cannot be drawn (OSError: no font; ")
    assert unlogged.startswith(f"{output} is published, but not logged in MLflow (")
    done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mlflow"]["run_id"] == only_run(client, tracking).info.run_id


def test_options_of_mlflow_want_a_server(tmp_path: Path) -> None:
    command = [sys.executable, *job(tmp_path), "--registered-model", "chexnet"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    expected = "train_cnn: --registered-model: chexnet, which is of MLflow, without --tracking-uri; give that too\n"
    assert run.stderr == expected


def test_mistakes_are_named(server: MlflowServer, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--tracking-uri: the MLflow server http://127\.0\.0\.1:9 does not take runs \("
    ):
        Tracking("http://127.0.0.1:9").check()
    with pytest.raises(UserError, match=r"--tracking-uri: the MLflow server .* does not take runs \(.*[Nn]ame"):
        Tracking(server.uri, registered_model="a/b").check()
    with pytest.raises(UserError, match=r"--registered-model: is missing, and its aliases are to be set"):
        roll_back(str(tmp_path), tracking=Tracking(server.uri))
    with pytest.raises(UserError, match=r"DIR: .* is no model directory"):
        log(str(tmp_path), Tracking(server.uri))

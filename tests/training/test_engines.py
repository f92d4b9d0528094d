"""What every engine owes: one class of tests, run on each of them."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

import insitu
from insitu.cluster.cpu import cpu_flags, trains_in_bf16
from insitu.data.decode import decode
from insitu.errors import UserError, WorkerError
from insitu.recipe import parse
from insitu.training.engines.base import Listener
from training.digits_rows import TRAIN, VALIDATION, digit_rows, recipe_tree, write_rows

PRECISION = {"orca": "bf16" if trains_in_bf16(cpu_flags()) else "fp32", "bigdl": "fp32"}
"""The engines, each with the least precise arithmetic that it has here."""

SUMMARY_KEYS = {"output", "engine", "workers", "steps", "images_per_second", "metrics", "quarantined", "seconds"}


class Run:
    """One training run, with the events that its workers sent."""

    def __init__(self, spark: SparkSession, tree: dict[str, Any], data: str, output: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.output = str(output)
        self.summary = insitu.train(spark, parse(tree), data=data, output=self.output, listener=self.events.append)

    def scores_loss(self) -> float:
        """The published model's own loss on the validation rows."""
        trained, rows = insitu.load(self.output), digit_rows()
        images = np.stack([trained.preprocess(image) for image in rows["image"][-VALIDATION:]])
        scores = trained.model.predict(images, verbose=0)
        return float(-np.log(scores[np.arange(VALIDATION), rows["label"][-VALIDATION:]]).mean())

    def weights(self) -> list[np.ndarray]:
        return insitu.load(self.output).model.get_weights()

    def history(self) -> list[dict[str, Any]]:
        return history_of(self.output)


def history_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(output) / "history.jsonl").read_text().splitlines()]


class Interrupt:
    """Ctrl-C, in effect, once a step is done."""

    def __init__(self, *, after_step: int) -> None:
        self._after_step = after_step
        self._done = False

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] >= self._after_step and not self._done:
            self._done = True
            os.kill(os.getpid(), signal.SIGINT)


def end_after_checkpoint(step: int) -> Listener:
    """A listener that ends the run once that step's checkpoint, or a later one, is written."""

    def end(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] >= step:
            raise LookupError("enough")

    return end


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows())


@pytest.fixture(scope="class")
def two_workers(spark: SparkSession, engine: str, data: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    often = {"every_minutes": 1e-6}
    tree = recipe_tree(engine=engine, workers=2, precision=PRECISION[engine], checkpoint=often)
    return Run(spark, tree, data, tmp_path_factory.mktemp(engine) / "model")


@pytest.mark.parametrize("engine", PRECISION, scope="class")
class TestEngine:
    def test_summary_says_what_was_run(self, two_workers: Run, engine: str) -> None:
        summary = two_workers.summary
        assert summary.keys() >= SUMMARY_KEYS
        assert (summary["engine"], summary["workers"], summary["steps"]) == (engine, 2, 4)
        assert summary["images_per_second"] > 0
        json.dumps(summary)

    def test_workers_have_cores_of_their_own_or_share_their_executors(self, two_workers: Run, engine: str) -> None:
        workers = [event for event in two_workers.events if event["event"] == "worker"]
        assert sorted(event["rank"] for event in workers) == [0, 1]
        first, second = (set(event["cores"]) for event in workers)
        assert first and second and first | second <= os.sched_getaffinity(0)
        assert first & second == {"orca": set(), "bigdl": os.sched_getaffinity(0)}[engine]
        assert all(event["threads"] == 1 for event in workers)
        openmp = {"OMP_NUM_THREADS": "1", "KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
        assert all(event["openmp"] == {"orca": openmp, "bigdl": {}}[engine] for event in workers)

    def test_model_computes_in_float32_however_it_was_trained(self, two_workers: Run) -> None:
        """OpenVINO converts no bfloat16, and TensorFlow is slow in it on many processors."""
        layers = insitu.load(two_workers.output).model.layers
        assert {layer.dtype_policy.name for layer in layers} <= {"float32", "uint8"}

    def test_every_epoch_is_reported_and_kept(self, two_workers: Run) -> None:
        epochs = [event for event in two_workers.events if event["event"] == "epoch"]
        history = [json.loads(line) for line in (Path(two_workers.output) / "history.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in history] == [0, 1]
        assert [{**line, "event": "epoch"} for line in history] == epochs
        assert not Path(f"{two_workers.output}.run").exists()

    def test_checkpoint_is_due_when_its_minutes_are_over(self, two_workers: Run) -> None:
        written = [event for event in two_workers.events if event["event"] == "checkpoint"]
        assert written[0]["step"] == 1, "no other cause falls on a step within an epoch"
        assert written[-1]["step"] == 4
        assert [event["error"] for event in written] == [None] * len(written)

    @pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
    def test_resumed_run_is_the_uninterrupted_one(
        self, spark: SparkSession, engine: str, tmp_path: Path, workers: int
    ) -> None:
        """Stopped in mid-epoch, with dropout, a plateau and early stopping: weights and history are the same."""
        data = write_rows(tmp_path / "data", digit_rows(train=320, validation=33))
        tree = recipe_tree(
            engine=engine,
            workers=workers,
            epochs=4,
            global_batch=8,
            augment={"flip": True, "brightness": 0.2},
            schedule={"decay": {"kind": "plateau", "min_delta": 10.0, "factor": 0.5}},
            early_stopping={"patience_epochs": 4},
            checkpoint={"every_steps": 13},
        )
        whole = Run(spark, tree, data, tmp_path / "whole")
        output = str(tmp_path / "resumed")
        with pytest.raises(LookupError, match="enough"):
            insitu.train(spark, parse(tree), data=data, output=output, listener=end_after_checkpoint(52))
        step = max(int(path.name.removeprefix("step-")) for path in Path(f"{output}.run/checkpoints").iterdir())
        assert step % 40, "it was not stopped in mid-epoch"
        with pytest.raises(UserError, match=rf"an unfinished run is at .*, its last checkpoint after step {step}; add"):
            insitu.train(spark, parse(tree), data=data, output=output)
        summary = insitu.train(spark, parse(tree), data=data, output=output, resume=True, listener=lambda event: None)
        assert (summary["resumed_from_step"], summary["steps"], summary["epochs"]) == (step, 160, 4)
        for ours, theirs in zip(whole.weights(), insitu.load(output).model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        for line, again in zip(whole.history(), history_of(output), strict=True):
            assert line["learning_rate"] == again["learning_rate"]
            assert line["loss"] == pytest.approx(again["loss"], abs=1e-5)
            assert line["validation"]["loss"] == pytest.approx(again["validation"]["loss"], abs=1e-5)
        assert whole.history()[-1]["learning_rate"] < 0.001

    @pytest.mark.slow
    def test_patience_goes_on_where_it_was(self, spark: SparkSession, engine: str, tmp_path: Path) -> None:
        """No epoch falls by 100; the run is stopped in the third one, the second without a new best."""
        data = write_rows(tmp_path / "data", digit_rows(train=640, validation=33))
        stop = {"patience_epochs": 2, "min_delta": 100.0}
        settings = {"epochs": 5, "global_batch": 8, "early_stopping": stop, "checkpoint": {"every_steps": 13}}
        recipe, output = parse(recipe_tree(engine=engine, workers=1, **settings)), str(tmp_path / "model")
        with pytest.raises(LookupError, match="enough"):
            insitu.train(spark, recipe, data=data, output=output, listener=end_after_checkpoint(169))
        summary = insitu.train(spark, recipe, data=data, output=output, resume=True, listener=lambda event: None)
        assert 160 < summary["resumed_from_step"] < 240
        assert summary["epochs"] == len(history_of(output)) == 3
        assert summary["metrics"] == history_of(output)[0]["validation"]

    @pytest.mark.slow
    def test_run_is_resumed_by_another_number_of_workers(
        self, spark: SparkSession, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = write_rows(tmp_path / "data", digit_rows(train=640, validation=33))
        output, began = str(tmp_path / "model"), time.time()
        with pytest.raises(KeyboardInterrupt):
            two = parse(recipe_tree(engine=engine, workers=2, epochs=3))
            insitu.train(spark, two, data=data, output=output, listener=Interrupt(after_step=3))
        stopped, events = time.time(), list[dict[str, Any]]()
        one = parse(recipe_tree(engine=engine, workers=1, epochs=3))
        summary = insitu.train(spark, one, data=data, output=output, resume=True, listener=events.append)
        assert "resume: training.workers was 2, is 1" in capsys.readouterr().err
        assert summary["resumed_from_step"] >= 3
        assert (summary["workers"], summary["steps"], len(history_of(output))) == (1, 60, 3)
        provenance = json.loads((Path(output) / "provenance.json").read_text())
        first, second = provenance["drivers"]
        assert provenance["started"] == first["started"] < second["started"]
        assert 0 < first["seconds"] <= stopped - began + 0.1  # it is rounded
        assert summary["seconds"] == provenance["run"]["seconds"] == round(first["seconds"] + second["seconds"], 1)
        assert (first["first_step"], second["first_step"]) == (0, summary["resumed_from_step"])
        assert [len(driver["workers"]) for driver in (first, second)] == [2, 1]
        assert min(event["seconds"] for event in events if event["event"] == "step") > first["seconds"]
        report = (Path(output) / "report/index.html").read_text()
        assert f"Resumed from step {second['first_step']}, {second['started'][:10]}" in report

    def test_metrics_are_scikit_learns_on_the_published_models_scores(self, two_workers: Run) -> None:
        trained, rows = insitu.load(two_workers.output), digit_rows()
        labels = np.array(rows["label"][-VALIDATION:])
        images = np.stack([trained.preprocess(image) for image in rows["image"][-VALIDATION:]])
        scores = trained.model.predict(images, verbose=0).astype(np.float64)
        scores /= scores.sum(axis=1, keepdims=True)
        metrics = two_workers.summary["metrics"]
        assert trained.model.output.dtype == "float32"
        assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(axis=1)))
        assert metrics["loss"] == pytest.approx(log_loss(labels, scores, labels=range(10)), rel=1e-2)
        expected = np.mean([roc_auc_score(labels == k, scores[:, k]) for k in range(10)])
        assert metrics["auc_macro"] == pytest.approx(expected, abs=1e-2)

    def test_validation_rows_are_kept_as_a_reference(self, two_workers: Run) -> None:
        """All of so few, with what scoring tells of rows."""
        rows, scores = digit_rows(), pq.read_table(f"{two_workers.output}/predictions.parquet")["scores"]
        kept = pq.read_table(f"{two_workers.output}/reference.parquet")
        assert kept["scores"] == scores
        images = np.stack([decode(image, size=(32, 32), channels=1) for image in rows["image"][-VALIDATION:]])
        means = images[:, ::4, ::4].mean(axis=(1, 2, 3)) / 255
        np.testing.assert_allclose(np.sort(kept["input_mean"]), np.sort(means), rtol=0, atol=1e-6)
        assert set(kept["input_height"].to_pylist()) == set(kept["input_width"].to_pylist()) == {8}

    @pytest.mark.slow
    def test_gradient_of_two_workers_is_that_of_one_big_batch(
        self, spark: SparkSession, engine: str, data: str, tmp_path: Path
    ) -> None:
        """One step of plain SGD at rate 1 on all rows: the weights differ as the averaged gradients do."""
        weights: list[list[np.ndarray]] = []
        for workers, gradients in ((1, "fp32"), (2, "fp32"), (2, "bf16")):
            settings = {"workers": workers, "gradients": gradients, "epochs": 1, "global_batch": 64}
            sgd = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0}
            tree = recipe_tree(engine=engine, optimizer=sgd, **settings)
            tree["model"] = {"name": "mcnn", "options": {"width": 0.5}}
            tree["data"]["size"] = [64, 64]
            weights.append(Run(spark, tree, data, tmp_path / f"model-{len(weights)}").weights())
        one, two, rounded = weights
        assert max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True)) < 1e-5
        head_bias, rounded_bias = two[-1], rounded[-1]  # which start from 0
        assert np.abs(head_bias).max() > 1e-4, "no step was taken"
        assert 0 < np.abs(rounded_bias - head_bias).max() < 2**-7 * np.abs(head_bias).max()

    @pytest.mark.parametrize("patience", [1, 9], ids=["stops", "runs to its end"])
    def test_early_stopping_keeps_the_best_epoch(
        self, spark: SparkSession, engine: str, data: str, tmp_path: Path, patience: int
    ) -> None:
        """No epoch falls by 100, so the first counts as the best; patience of 1 stops after the second.

        It is also the run of one worker, which computes on all cores.
        """
        stop = {"patience_epochs": patience, "min_delta": 100.0}
        run = Run(spark, recipe_tree(engine=engine, epochs=3, early_stopping=stop), data, tmp_path / "model")
        history = [json.loads(line) for line in (tmp_path / "model/history.jsonl").read_text().splitlines()]
        assert len(history) == run.summary["epochs"] == min(3, 1 + patience)
        assert run.summary["metrics"] == history[0]["validation"]
        assert run.scores_loss() == pytest.approx(history[0]["validation"]["loss"], rel=1e-4)
        (worker,) = (event for event in run.events if event["event"] == "worker")
        assert worker["threads"] == 2

    def test_divergence_is_the_users_to_mend(self, spark: SparkSession, engine: str, data: str, tmp_path: Path) -> None:
        """And that no checkpoint is written of what is lost is said once."""
        sgd = {"name": "sgd", "learning_rate": 1e30}
        tree = recipe_tree(engine=engine, optimizer=sgd, global_batch=8, checkpoint={"every_steps": 1})
        events: list[dict[str, Any]] = []
        with pytest.raises(UserError, match=r"training\.optimizer\.learning_rate: .*NaN.*; lower it"):
            insitu.train(spark, parse(tree), data=data, output=str(tmp_path / "model"), listener=events.append)
        errors = [event["error"] for event in events if event["event"] == "checkpoint" and event["error"]]
        assert errors in ([f"the loss is {loss}; none is written until it is finite"] for loss in ("nan", "inf"))

    def test_a_failing_worker_names_itself_and_leaves_nothing(
        self, spark: SparkSession, engine: str, tmp_path: Path
    ) -> None:
        data = write_rows(tmp_path / "vanishing", digit_rows())

        restarts: list[dict[str, Any]] = []

        def vanish(event: dict[str, Any]) -> None:
            shutil.rmtree(data, ignore_errors=True)
            if event["event"] == "restart":
                restarts.append(event)

        with pytest.raises(WorkerError, match=r"rank \d+ on 127\.0\.0\.1:\n[\s\S]*FileNotFound"):
            insitu.train(
                spark,
                parse(recipe_tree(engine=engine, max_restarts=1)),
                data=data,
                output=str(tmp_path / "model"),
                listener=vanish,
            )
        assert len(restarts) == 1, "data that cannot be read may come back"
        assert list(tmp_path.iterdir()) == []


def augmented() -> dict[str, Any]:
    """Two epochs of one worker with pyarrow's reader."""
    return recipe_tree(workers=1, epochs=2, augment={"flip": True, "brightness": 0.2})


class TestOrca:
    """What BigDL cannot do, and refuses."""

    @pytest.fixture(scope="class")
    @staticmethod
    def parent(spark: SparkSession, data: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
        return Run(spark, augmented(), data, tmp_path_factory.mktemp("parent") / "model")

    def test_readers_and_a_cache_train_the_same_weights(
        self, spark: SparkSession, parent: Run, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tree = augmented()
        tree["data"] |= {"reader": "petastorm", "cache_mib": 1}
        petastorm = Run(spark, tree, data, tmp_path / "model")
        for ours, theirs in zip(parent.weights(), petastorm.weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        images = TRAIN + VALIDATION
        assert f"cache: a worker keeps {images} of its {images} images decoded" in capsys.readouterr().err

    def test_frozen_trunk_stays_and_head_learns(
        self, spark: SparkSession, parent: Run, data: str, tmp_path: Path
    ) -> None:
        """It is also the run of a worker that is told to compute on one of its two cores."""
        tree = recipe_tree(epochs=1, threads=1)
        tree["model"] |= {"init": parent.output, "freeze_trunk_epochs": 1}
        run = Run(spark, tree, data, tmp_path / "model")
        source, model = insitu.load(parent.output).model, insitu.load(run.output).model
        for layer in model.layers:
            for ours, theirs in zip(layer.get_weights(), source.get_layer(layer.name).get_weights(), strict=True):
                assert np.array_equal(ours, theirs) == (layer.name != "head"), layer.name
        provenance = json.loads((Path(run.output) / "provenance.json").read_text())
        assert provenance["parent_model"] == f"file://{parent.output}"
        ((worker,),) = (driver["workers"] for driver in provenance["drivers"])
        assert (worker["threads"], len(worker["cores"]), worker["openmp"]["OMP_NUM_THREADS"]) == (1, 1, "1")

    def test_more_threads_than_cores_are_refused_by_name(self, spark: SparkSession, data: str, tmp_path: Path) -> None:
        message = r"training\.threads: 2 threads, and a worker has 1 cores; set 1 at most, or fewer training\.workers"
        with pytest.raises(UserError, match=message):
            Run(spark, recipe_tree(workers=2, threads=2), data, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_resumed_run_has_its_frozen_epochs(
        self, spark: SparkSession, parent: Run, data: str, tmp_path: Path
    ) -> None:
        """Stopped after the first epoch, the only one with a frozen trunk, wherever a quick worker is by then."""
        epochs = 8
        tree = recipe_tree(epochs=epochs, global_batch=8, checkpoint={"every_steps": 3})
        tree["model"] |= {"init": parent.output, "freeze_trunk_epochs": 1}
        whole = Run(spark, tree, data, tmp_path / "whole")
        output = str(tmp_path / "resumed")
        with pytest.raises(LookupError, match="enough"):
            insitu.train(spark, parse(tree), data=data, output=output, listener=end_after_checkpoint(9))
        summary = insitu.train(spark, parse(tree), data=data, output=output, resume=True, listener=lambda event: None)
        assert 8 < summary["resumed_from_step"] < 8 * epochs
        for ours, theirs in zip(whole.weights(), insitu.load(output).model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        for history in (history_of(output), whole.history()):
            assert [line["epoch"] for line in history] == list(range(epochs))

    @pytest.mark.nightly
    def test_resumed_run_goes_on_with_its_moving_statistics_and_slots(
        self, spark: SparkSession, data: str, tmp_path: Path
    ) -> None:
        """Batch normalisation on two workers, and momentum instead of Adam; each checkpoint is in mid-epoch.

        Orca's alone: so deep a network on so small images is not the same twice on BigDL, resumed or not.
        """
        tree = recipe_tree(
            workers=2,
            global_batch=16,
            optimizer={"name": "sgd", "momentum": 0.9, "learning_rate": 0.001},
            checkpoint={"every_steps": 3},
        )
        tree["model"] = {"name": "resnet50"}
        whole = Run(spark, tree, data, tmp_path / "whole")
        output = str(tmp_path / "resumed")
        with pytest.raises(LookupError, match="enough"):
            insitu.train(spark, parse(tree), data=data, output=output, listener=end_after_checkpoint(3))
        summary = insitu.train(spark, parse(tree), data=data, output=output, resume=True, listener=lambda event: None)
        assert summary["resumed_from_step"] in (3, 6)
        for ours, theirs in zip(whole.weights(), insitu.load(output).model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

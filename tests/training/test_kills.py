"""Runs whose workers and executors are killed or halted at random steps end with the weights of an undisturbed run."""

import json
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pyspark.sql import SparkSession

import insitu
from conftest import SEED, Submitted
from insitu.cluster import filesystem
from insitu.recipe import parse
from training.digits_rows import digit_rows, recipe_tree, write_rows
from training.killing_job import Killer

JOB = Path(__file__).parent / "killing_job.py"
STEPS_PER_EPOCH, EPOCHS = 20, 6
LOCAL = ["training", "python", "training", "python", "training"]
STANDALONE = ["executor", "training", "python", "executor", "training"]
HALTED = ["halted-training", "halted-python"]
AWAY_SECONDS = 10


def random_kills(victims: list[str], seed: int, *, steps: int = STEPS_PER_EPOCH * EPOCHS) -> list[tuple[int, str]]:
    """Each victim at a random step of its own part of the run, whose last third is left to the pace of events."""
    part = 2 * steps // 3 // len(victims)
    rng = random.Random(seed)
    return [(place * part + rng.randrange(5, part - 5), victim) for place, victim in enumerate(victims)]


Train = Callable[..., tuple[Submitted, Path]]


@pytest.fixture(scope="module")
def train(submit: Callable[..., Submitted], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs the job on a master with kills; returns it and its model directory."""
    data = write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows(train=640, validation=33))

    def run(master: str, kills: list[tuple[int, str]]) -> tuple[Submitted, Path]:
        tree = recipe_tree(workers=2, epochs=EPOCHS, checkpoint={"every_steps": 10}, max_restarts=len(LOCAL))
        output = tmp_path_factory.mktemp("run") / "model"
        done = submit(JOB, data, output, json.dumps(kills), json.dumps(tree), master=master, timeout_s=900)
        assert done.summary["steps"] == EPOCHS * STEPS_PER_EPOCH, f"seed {SEED}, kills {kills}"
        return done, output

    return run


@pytest.fixture(scope="module")
def undisturbed(train: Train) -> list[np.ndarray]:
    """The weights of a run that nobody kills."""
    return insitu.load(str(train("local[2]", [])[1])).model.get_weights()


@pytest.mark.slow
def test_output_that_is_away_when_a_worker_dies_costs_no_step(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filesystem, "_RETRY_SECONDS", 1)
    data = write_rows(tmp_path / "data", digit_rows(train=640, validation=33))
    place, away = tmp_path / "place", tmp_path / "away"
    place.mkdir()
    gateway: Any = spark.sparkContext._gateway
    killer = Killer([(0, "training")], spark.sparkContext.applicationId, psutil.Process(gateway.proc.pid))
    written: list[int] = []
    restarts: list[int] = []

    def unplug(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and not restarts and not away.exists():
            written.append(event["step"])
            place.rename(away)
            killer({"event": "step", "step": event["step"]})
            threading.Timer(AWAY_SECONDS, away.rename, [place]).start()
        elif event["event"] == "restart":
            restarts.append(event["step"])

    recipe = parse(recipe_tree(workers=2, epochs=2, checkpoint={"every_steps": 10}))
    summary = insitu.train(spark, recipe, data=data, output=str(place / "model"), listener=unplug)
    assert "trying again" in capsys.readouterr().err, "the output was back before the gang was started again"
    assert (restarts, summary["steps"]) == (written, 2 * STEPS_PER_EPOCH)
    assert [path.name for path in place.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("where", "sorts"),
    [
        pytest.param("local[2]", LOCAL, id="local"),
        pytest.param("standalone", STANDALONE, id="standalone"),
        pytest.param("local[2]", HALTED, id="halted", marks=pytest.mark.nightly),
    ],
)
def test_disturbed_workers_cost_nothing_but_time(
    where: str, sorts: list[str], train: Train, undisturbed: list[np.ndarray], request: pytest.FixtureRequest, seed: int
) -> None:
    """A halted worker is given up within a minute; Spark's Python worker above one, a minute after all are done."""
    master = request.getfixturevalue("standalone") if where == "standalone" else where
    kills = random_kills(sorts, seed)
    run, output = train(master, kills)
    for ours, theirs in zip(undisturbed, insitu.load(str(output)).model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    reasons = [line.removeprefix("restart: ") for line in run.stderr.splitlines() if line.startswith("restart: ")]
    disturbed = [line.split() for line in run.stderr.splitlines() if line.startswith("kill: ")]
    assert not [pid for _, _, pid, *_ in disturbed if psutil.pid_exists(int(pid))]
    victims = [victim for _, victim, *_ in disturbed]
    assert victims == [victim for _, victim in kills]
    assert run.summary["restarts"] == len(reasons) == len(kills)
    for victim, reason in zip(victims, reasons, strict=True):
        assert re.search(EXPECTED[victim], reason), reason
    history = [json.loads(line)["epoch"] for line in (output / "history.jsonl").read_text().splitlines()]
    assert history == list(range(EPOCHS))


EXPECTED: dict[str, Any] = {
    "training": r"rank \d on 127\.0\.0\.1: exit code 137 \(SIGKILL\): ",
    "python": r"rank \d on 127\.0\.0\.1: Spark's Python worker ended without a word",
    "executor": r"executor \d+ on 127\.0\.0\.1 was lost: .*code 137, SIGKILL: ",
    "halted-training": r"rank \d on 127\.0\.0\.1 \(\d+ s ago\) stopped answering: halted",
    "halted-python": r"every worker is done, yet Spark's Python worker above one of them has not ended",
}

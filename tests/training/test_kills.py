"""Runs whose workers and executors are killed at random steps end with the weights of an undisturbed run."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import insitu
from conftest import SEED, Submitted
from training.digits_rows import digit_rows, recipe_tree, write_rows

pytestmark = pytest.mark.slow

JOB = Path(__file__).parent / "killing_job.py"
STEPS_PER_EPOCH, EPOCHS = 20, 18
LOCAL = ["training", "python", "training", "python", "training"]
STANDALONE = ["executor", "training", "python", "executor", "training"]


def random_kills(victims: list[str], seed: int, *, steps: int = STEPS_PER_EPOCH * EPOCHS) -> list[tuple[int, str]]:
    """Each victim at a random step of its own part of the run, whose last third is left to the pace of step events."""
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


@pytest.mark.parametrize("where", ["local[2]", "standalone"])
def test_killed_workers_cost_nothing_but_time(
    where: str, train: Train, undisturbed: list[np.ndarray], request: pytest.FixtureRequest, seed: int
) -> None:
    master = request.getfixturevalue("standalone") if where == "standalone" else where
    kills = random_kills(STANDALONE if where == "standalone" else LOCAL, seed)
    run, output = train(master, kills)
    for ours, theirs in zip(undisturbed, insitu.load(str(output)).model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    reasons = [line.removeprefix("restart: ") for line in run.stderr.splitlines() if line.startswith("restart: ")]
    victims = [line.split()[1] for line in run.stderr.splitlines() if line.startswith("kill: ")]
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
}

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

JOB = Path(__file__).parent / "killing_job.py"
STEPS_PER_EPOCH, EPOCHS = 20, 26
LOCAL = ["training", "python", "training", "python", "training"]
STANDALONE = ["executor", "training", "python", "executor", "training"]


def random_kills(victims: list[str], seed: int) -> list[tuple[int, str]]:
    """Each victim at a random step of its own part of the run, whose last third is left to the pace of step events."""
    part = 2 * STEPS_PER_EPOCH * EPOCHS // 3 // len(victims)
    rng = random.Random(seed)
    return [(place * part + rng.randrange(5, part - 5), victim) for place, victim in enumerate(victims)]


@pytest.mark.parametrize("where", ["local[2]", "standalone"])
def test_killed_workers_cost_nothing_but_time(
    where: str, submit: Callable[..., Submitted], request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    master = request.getfixturevalue("standalone") if where == "standalone" else where
    kills = random_kills(STANDALONE if where == "standalone" else LOCAL, seed)
    data = write_rows(tmp_path / "data", digit_rows(train=640, validation=33))
    tree = recipe_tree(workers=2, epochs=EPOCHS, checkpoint={"every_steps": 10}, max_restarts=len(kills))

    def train(name: str, kills: list[tuple[int, str]]) -> tuple[Submitted, list[np.ndarray]]:
        flags = (data, tmp_path / name, json.dumps(kills), json.dumps(tree))
        run = submit(JOB, *flags, master=master, timeout_s=900)
        assert run.summary["output"].endswith(name), f"seed {SEED}, kills {kills}"
        return run, insitu.load(str(tmp_path / name)).model.get_weights()

    _, undisturbed = train("undisturbed", [])
    run, weights = train("killed", kills)
    for ours, theirs in zip(undisturbed, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    reasons = [line.removeprefix("restart: ") for line in run.stderr.splitlines() if line.startswith("restart: ")]
    victims = [line.split()[1] for line in run.stderr.splitlines() if line.startswith("kill: ")]
    assert victims == [victim for _, victim in kills]
    assert run.summary["restarts"] == len(reasons) == len(kills)
    for victim, reason in zip(victims, reasons, strict=True):
        assert re.search(EXPECTED[victim], reason), reason
    history = [json.loads(line)["epoch"] for line in (tmp_path / "killed/history.jsonl").read_text().splitlines()]
    assert history == list(range(EPOCHS))


EXPECTED: dict[str, Any] = {
    "training": r"rank \d on 127\.0\.0\.1: exit code 137 \(SIGKILL\): ",
    "python": r"rank \d on 127\.0\.0\.1: Spark's Python worker ended without a word",
    "executor": r"executor \d+ on 127\.0\.0\.1 was lost: .*code 137",
}

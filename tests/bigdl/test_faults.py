"""Executors that are killed cost a BigDL run nothing but time."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import insitu
from conftest import SEED, Submitted
from training.digits_rows import digit_rows, recipe_tree, write_rows
from training.test_kills import random_kills

pytestmark = pytest.mark.slow

JOB = Path(__file__).parent.parent / "training" / "killing_job.py"
STEPS_PER_EPOCH, EPOCHS = 20, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows(train=640, validation=33))


def test_killed_executors_cost_nothing_but_time(
    submit: Callable[..., Submitted], standalone: str, data: str, tmp_path: Path
) -> None:
    kills = random_kills(["executor", "executor"], SEED, steps=STEPS_PER_EPOCH * EPOCHS)
    found = {}
    for name, victims in (("undisturbed", []), ("killed", kills)):
        tree = recipe_tree(engine="bigdl", epochs=EPOCHS, checkpoint={"every_steps": 10})
        output = tmp_path / name
        found[name] = submit(JOB, data, output, json.dumps(victims), json.dumps(tree), master=standalone, timeout_s=600)
        assert found[name].summary["steps"] == EPOCHS * STEPS_PER_EPOCH
    ours, theirs = (insitu.load(str(tmp_path / name)).model.get_weights() for name in found)
    for killed, undisturbed in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(killed, undisturbed, rtol=0, atol=1e-5)
    stderr = found["killed"].stderr
    reasons = re.findall("^restart: (.*)", stderr, re.MULTILINE)
    assert found["killed"].summary["restarts"] == len(reasons) == len(kills) == stderr.count("kill: ")
    expected = r"executor \d+ on 127\.0\.0\.1 was lost: Command exited with code 137, SIGKILL: killed by someone, a "
    assert all(re.match(expected, reason) for reason in reasons), reasons

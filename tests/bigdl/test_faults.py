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

JOB = Path(__file__).parent.parent / "training" / "killing_job.py"
STEPS_PER_EPOCH, EPOCHS = 20, 2
IMPATIENT = (
    *("spark.executor.heartbeatInterval=2s", "spark.network.timeoutInterval=5s", "spark.network.timeout=20s"),
    "spark.storage.blockManagerHeartbeatTimeoutMs=20s",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("digits") / "data", digit_rows(train=640, validation=33))


@pytest.mark.parametrize(
    ("victims", "expected"),
    [
        pytest.param(
            ["executor"],
            r"Command exited with code 137, SIGKILL: killed by someone, a ",
            id="killed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["halted-executor"],
            r"Executor heartbeat timed out after \d+ ms",
            id="halted",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_lost_executors_cost_nothing_but_time(
    submit: Callable[..., Submitted], standalone: str, data: str, tmp_path: Path, victims: list[str], expected: str
) -> None:
    """Spark gives up a halted executor by its own timeout, of two minutes unless it is told another one."""
    kills = random_kills(victims, SEED, steps=STEPS_PER_EPOCH * EPOCHS)
    found = {}
    for name, disturbed in (("undisturbed", []), ("disturbed", kills)):
        tree = recipe_tree(engine="bigdl", epochs=EPOCHS, checkpoint={"every_steps": 10})
        arguments = (data, tmp_path / name, json.dumps(disturbed), json.dumps(tree))
        conf = IMPATIENT if "halted-executor" in victims else ()
        found[name] = submit(JOB, *arguments, master=standalone, timeout_s=600, conf=conf)
        assert found[name].summary["steps"] == EPOCHS * STEPS_PER_EPOCH
    ours, theirs = (insitu.load(str(tmp_path / name)).model.get_weights() for name in found)
    for weights, undisturbed in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(weights, undisturbed, rtol=0, atol=1e-5)
    stderr = found["disturbed"].stderr
    reasons = re.findall("^restart: (.*)", stderr, re.MULTILINE)
    assert found["disturbed"].summary["restarts"] == len(reasons) == len(kills) == stderr.count("kill: ")
    lost = rf"executor \d+ on 127\.0\.0\.1 was lost: {expected}"
    assert all(re.match(lost, reason) for reason in reasons), reasons

"""What the first worker leaves when the training is done."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from insitu.cluster import filesystem
from insitu.training.record import Record

METRICS = {"loss": 0.25}


class Driver:
    """Takes a worker's words."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.progress = 0

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def advance(self) -> None:
        self.progress += 1


def test_worker_that_waits_for_the_output_says_so_and_gets_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_RETRY_SECONDS", 0.1)
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    validation = SimpleNamespace(weights=model.get_weights(), labels=np.zeros(4), scores=np.zeros((4, 2)))
    job = SimpleNamespace(scratch=f"file://{tmp_path}/gang", history=())
    driver, timer = Driver(), SimpleNamespace(images_per_second=lambda: 10.0)
    record = Record(job, 0, driver, timer, validation, None)  # type: ignore[arg-type]
    record.set_model(model)
    record.restore({"history": [{"epoch": 0, "step": 8, "validation": METRICS}], "loss": 0.0, "steps": 0})
    threading.Timer(0.5, (tmp_path / "gang").mkdir).start()
    record.on_train_end()
    assert json.loads((tmp_path / "gang/result.json").read_text())["metrics"] == METRICS
    assert driver.events and driver.progress == len(driver.events)
    assert {event["event"] for event in driver.events} == {"waiting"}
    assert driver.events[0]["reason"].startswith("leaving the result failed ([Errno 2] No such file or directory")

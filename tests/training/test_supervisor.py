"""Gangs that are lost and start again, on a real file system; the engine is one that only writes checkpoints."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.cluster import filesystem
from insitu.data.columns import ImageColumn, LabelColumn
from insitu.data.inputs import ImageInput
from insitu.data.opened import Opened
from insitu.data.pipeline import Source
from insitu.data.plan import Rows, plan_shards
from insitu.errors import UserError, WorkerLost
from insitu.recipe import Recipe, parse
from insitu.training.checkpoints import Checkpoint, CheckpointStore
from insitu.training.engines.base import Event, Layout, Listener, TrainingJob, TrainingResult
from insitu.training.rundir import RunDirectory
from insitu.training.supervisor import Supervisor
from training.digits_rows import recipe_tree

AWAY_SECONDS = 0.5


class LosingEngine:
    """Writes a checkpoint of step 3, loses its gang, and is done the next time.

    Args:
        on_loss: called before the gang is lost, with the checkpoints' directory.
    """

    def __init__(self, on_loss: Callable[[Path], None]) -> None:
        self._on_loss = on_loss
        self.jobs: list[TrainingJob] = []

    def settle(self, recipe: Recipe, layout: Layout, opened: Opened, **_: Any) -> Recipe:
        return recipe

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        self.jobs.append(job)
        if len(self.jobs) == 1:
            CheckpointStore(job.checkpoints, keep=2).save(Checkpoint(3, [np.zeros(2)], [], state={}))
            listener({"event": "checkpoint", "step": 3, "seconds": 0.1, "error": None})
            self._on_loss(Path(job.checkpoints.removeprefix("file://")))
            raise WorkerLost("rank 0 on node7: killed")
        return TrainingResult("weights", "predictions", history=[], metrics={}, steps=10, images_per_second=None)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    run = RunDirectory(f"file://{tmp_path}/model")
    with run.opened(resume=False):
        yield run


@pytest.fixture
def job(run: RunDirectory) -> TrainingJob:
    plan = plan_shards([Rows("rows", 0, np.arange(20))], workers=1, local_batch=2, window_rows=20, seed=1)
    return TrainingJob(
        recipe=parse(recipe_tree(epochs=1, workers=1)),
        class_names=("a", "b"),
        source=Source(
            "pyarrow", ImageInput(ImageColumn("image", "encoded"), (8, 8), 1), LabelColumn("label", "integer"), (), "i8"
        ),
        train=plan,
        validation=plan,
        class_weights=None,
        initial_weights=None,
        scratch=run.uri,
        checkpoints=run.checkpoints,
        first_epoch=0,
        last_epoch=1,
        train_trunk=True,
    )


def away(place: Path) -> None:
    """Take a directory away and bring it back a little later."""
    hidden = place.with_name("away")
    place.rename(hidden)
    threading.Timer(AWAY_SECONDS, hidden.rename, [place]).start()


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(lambda checkpoints: away(checkpoints.parent), id="the run's directory"),
        pytest.param(lambda checkpoints: away(checkpoints / "step-0000000003"), id="an old listing"),
    ],
)
def test_lost_gang_waits_for_the_checkpoint_that_was_written(
    run: RunDirectory, job: TrainingJob, gone: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_RETRY_SECONDS", 0.1)
    engine, events = LosingEngine(gone), list[Event]()
    Supervisor(engine, Layout(1, 1, 1), run, events.append).train(job)
    assert [each.first_step for each in engine.jobs] == [0, 3]
    assert [event["step"] for event in events if event["event"] == "restart"] == [3]


def test_phase_that_goes_on_from_a_checkpoint_does_not_begin_without_one(run: RunDirectory, job: TrainingJob) -> None:
    """The epochs before it, with a frozen trunk, are an earlier driver's: only checkpoints have them."""
    engine = LosingEngine(lambda checkpoints: None)
    supervisor = Supervisor(engine, Layout(1, 1, 1), run, lambda event: None)
    with pytest.raises(
        UserError, match=r"no checkpoint after step 10 can be read.*; give the same command with --resume"
    ):
        supervisor.train(replace(job, first_epoch=1, last_epoch=2, resume_step=13))
    assert len(engine.jobs) == 1

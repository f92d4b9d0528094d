"""The callbacks of a worker, put together."""

import tensorflow as tf

from insitu.training.callbacks import DropoutSeeds, EarlyStopping, RateSchedule, Restore, StepTimer
from insitu.training.checkpoints import Checkpoint
from insitu.training.engines.base import TrainingJob
from insitu.training.progress import Reporter
from insitu.training.pulse import Pulse, Stateful
from insitu.training.record import Record
from insitu.training.validation import Validation


def worker_callbacks(
    job: TrainingJob, rank: int, reporter: Reporter, restored: Checkpoint | None
) -> list[tf.keras.callbacks.Callback]:
    """The callbacks of a job, in the order in which they must run."""
    timer, validation, rate = StepTimer(job), Validation(job, rank, reporter), RateSchedule(job)
    stop = job.recipe.training.early_stopping
    early_stopping = EarlyStopping(**stop.model_dump(), restored=restored) if stop else None
    record = Record(job, rank, reporter, timer, validation, early_stopping)
    stateful: list[Stateful] = [rate, *([early_stopping] if early_stopping else []), record]
    pulse = Pulse(job, rank, record, reporter, stateful, early_stopping)
    restore = [Restore(restored, stateful)] if restored else []
    return [timer, DropoutSeeds(job, rank), validation, *stateful, *restore, pulse]

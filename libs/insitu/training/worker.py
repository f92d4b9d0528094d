"""What one worker builds: its model, its batches and its callbacks, inside a distribution strategy.

Engines that run Keras give the strategy; nothing here knows which engine it is.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from insitu import models
from insitu.data.augment import Augmentation
from insitu.models.transfer import set_trunk_trainable
from insitu.recipe import EpochDecay, Recipe, StepDecay
from insitu.tasks import TASKS
from insitu.training import schedules
from insitu.training.checkpoints import Checkpoint
from insitu.training.engines.base import TrainingJob
from insitu.training.optimizers import build_optimizer, exchange_in_bf16

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build_model(recipe: Recipe, classes: int, *, precision: Literal["bf16", "fp32"] | None = None) -> "keras.Model":
    """The recipe's model with random weights of its seed; K `classes`.

    Its dropout layers draw from generators that can be set (`insitu.training.callbacks.DropoutSeeds`).

    Args:
        recipe: whose precision must be resolved.
        classes: K.
        precision: that it computes in; None is the recipe's.
    """
    with _keras_globals(seed=recipe.training.seed, bf16=(precision or recipe.training.precision) == "bf16"):
        return models.build(
            recipe.model.name,
            size=recipe.data.map_size,
            channels=recipe.data.map_channels,
            input=recipe.data.input,
            outputs=classes,
            activation=TASKS[recipe.task.kind].activation,
            options=recipe.model.options,
            normalization=recipe.model.normalization,
        )


@contextmanager
def _keras_globals(*, seed: int, bf16: bool) -> Iterator[None]:
    """Keras's dtype policy and the random seeds while a model is built; a notebook gets its own back."""
    import tensorflow as tf

    policy, python, numpy = tf.keras.mixed_precision.global_policy(), random.getstate(), np.random.get_state()
    tf.keras.utils.set_random_seed(seed)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if bf16 else "float32")
    tf.keras.backend.experimental.enable_tf_random_generator()
    try:
        yield
    finally:
        tf.keras.backend.experimental.disable_tf_random_generator()
        tf.keras.mixed_precision.set_global_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)


def training_model(
    job: TrainingJob, restored: Checkpoint | None = None, initial: list[np.ndarray] | None = None
) -> "keras.Model":
    """The job's model, compiled, as the checkpoint or else the initial weights have it; in the strategy's scope."""
    model = build_model(job.recipe, len(job.class_names))
    if restored:
        model.set_weights(restored.weights)
    elif initial:
        model.set_weights(initial)
    set_trunk_trainable(model, job.train_trunk)
    training = job.recipe.training
    optimizer = build_optimizer(**training.optimizer.model_dump(exclude={"base_batch"}), clip_norm=training.clip_norm)
    if training.gradients == "bf16" and job.train.workers > 1:
        exchange_in_bf16(optimizer)
    model.compile(optimizer, loss=TASKS[job.recipe.task.kind].loss(job.class_weights))
    model.optimizer.build(model.trainable_variables)  # else the first step is traced twice
    if restored:
        for variable, value in zip(model.optimizer.variables, restored.optimizer, strict=True):
            variable.assign(value)
    model._training_state = _Start(*divmod(job.first_step, job.train.steps))
    return model


@dataclass(frozen=True)
class _Start:
    """Where `Model.fit` begins; Keras's own seam for going on in mid-epoch is `Model._training_state`."""

    epoch: int
    step: int

    def maybe_load_initial_counters_from_ckpt(self, steps: int, initial_epoch: int, mode: str) -> tuple[int, int]:
        return self.epoch, self.step


def distributed_batches(job: TrainingJob, threads: int) -> "tf.distribute.DistributedDataset":
    """Every worker's own batches; called within the strategy's scope."""
    import tensorflow as tf

    augment = Augmentation(**job.recipe.training.augment.model_dump())

    def of_worker(context: Any) -> "tf.data.Dataset":
        return job.source.training_dataset(
            job.train,
            augment,
            rank=context.input_pipeline_id,
            first_step=job.first_step,
            threads=threads,
        )

    return tf.distribute.get_strategy().distribute_datasets_from_function(of_worker)


def learning_rate(recipe: Recipe, steps_per_epoch: int) -> schedules.LearningRate:
    """The recipe's rate for every step: linear scaling, warmup, and a decay that needs no feedback."""
    optimizer, schedule = recipe.training.optimizer, recipe.training.schedule
    peak = optimizer.learning_rate
    if optimizer.base_batch:
        peak = schedules.scaled_rate(peak, base_batch=optimizer.base_batch, global_batch=recipe.training.global_batch)
    decay: schedules.StepDecay | schedules.EpochDecay | None = None
    if isinstance(schedule.decay, StepDecay):
        decay = schedules.StepDecay(schedule.decay.factor, schedule.decay.at_epochs)
    elif isinstance(schedule.decay, EpochDecay):
        decay = schedules.EpochDecay(schedule.decay.factor, schedule.decay.from_epoch)
    return schedules.LearningRate(
        peak=peak,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=round(schedule.warmup_epochs * steps_per_epoch),
        warmup_start=optimizer.learning_rate if peak > optimizer.learning_rate else 0.0,
        decay=decay,
    )

"""What one worker builds: its model, its batches and its callbacks, inside a distribution strategy.

Engines that run Keras give the strategy; nothing here knows which engine it is.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu import models
from insitu.data.augment import Augmentation
from insitu.data.pipeline import training_dataset
from insitu.models.transfer import set_trunk_trainable
from insitu.recipe import EpochDecay, Recipe, StepDecay
from insitu.tasks import TASKS
from insitu.training import schedules
from insitu.training.engines.base import TrainingJob
from insitu.training.optimizers import build_optimizer
from insitu.training.weights import load_weights

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build_model(recipe: Recipe, classes: int, *, seed: int | None = None) -> "keras.Model":
    """The recipe's model with random weights, in its precision.

    Args:
        recipe: with a resolved precision.
        classes: K.
        seed: of the weights and of dropout; None takes the recipe's.
    """
    seed = recipe.training.seed if seed is None else seed
    with _keras_globals(seed=seed, bf16=recipe.training.precision == "bf16"):
        return models.build(
            recipe.model.name,
            size=recipe.data.size,
            channels=recipe.data.channels,
            outputs=classes,
            activation=TASKS[recipe.task.kind].activation,
            options=recipe.model.options,
        )


@contextmanager
def _keras_globals(*, seed: int, bf16: bool) -> Iterator[None]:
    """Keras's dtype policy and the random seeds while a model is built; a notebook gets its own back."""
    import tensorflow as tf

    policy, python, numpy = tf.keras.mixed_precision.global_policy(), random.getstate(), np.random.get_state()
    tf.keras.utils.set_random_seed(seed)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if bf16 else "float32")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)


def training_model(job: TrainingJob, *, rank: int) -> "keras.Model":
    """The job's model with its initial weights, compiled; called within the strategy's scope.

    Every worker draws dropout masks of its own.
    """
    seed = np.random.SeedSequence([job.recipe.training.seed, rank, job.first_epoch]).generate_state(1)[0]
    model = build_model(job.recipe, len(job.class_names), seed=int(seed))
    model.set_weights(load_weights(job.initial_weights))
    set_trunk_trainable(model, job.train_trunk)
    optimizer = job.recipe.training.optimizer
    model.compile(
        build_optimizer(**optimizer.model_dump(exclude={"base_batch"})),
        loss=TASKS[job.recipe.task.kind].loss(job.class_weights),
    )
    return model


def distributed_batches(job: TrainingJob, threads: int) -> "tf.distribute.DistributedDataset":
    """Every worker's own batches; called within the strategy's scope."""
    import tensorflow as tf

    augment = Augmentation(**job.recipe.training.augment.model_dump())

    def of_worker(context: Any) -> "tf.data.Dataset":
        return training_dataset(
            job.source,
            job.train,
            augment,
            rank=context.input_pipeline_id,
            first_step=job.first_epoch * job.train.steps,
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

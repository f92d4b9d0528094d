"""Optimisers by name; momentum SGD and LARS against their closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from insitu.recipe.schema import Training
from insitu.training.optimizers import build_optimizer

SEED = 1708
RATE, MOMENTUM, DECAY, TRUST = 0.5, 0.9, 0.01, 0.02
SHAPES = [(3, 3, 2, 4), (4,), (8, 5), (5,)]
OptimizerFactory = Callable[[], keras.optimizers.Optimizer]


def arrays(generator: np.random.Generator) -> list[np.ndarray]:
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES]


def closed_form(weights: list[np.ndarray], steps: list[list[np.ndarray]], *, trust: float | None) -> list[np.ndarray]:
    """Momentum SGD with L2 decay in float64, with LARS's local rate if `trust` is given."""
    weights = [weight.astype(np.float64) for weight in weights]
    velocity = [np.zeros_like(weight) for weight in weights]
    for gradients in steps:
        for k, gradient in enumerate(gradients):
            norm, decay = np.linalg.norm(weights[k]), DECAY if weights[k].ndim > 1 else 0
            local = 1.0
            if trust is not None:
                local = float(trust * norm / (np.linalg.norm(gradient) + DECAY * norm)) if decay else trust
            gradient = local * (gradient + decay * weights[k])
            velocity[k] = MOMENTUM * velocity[k] + RATE * gradient
            weights[k] = weights[k] - velocity[k]
    return weights


def run(optimizer: keras.optimizers.Optimizer, weights: list[np.ndarray], steps: list[list[np.ndarray]]) -> list:
    variables = [tf.Variable(weight) for weight in weights]
    optimizer.build(variables)

    @tf.function
    def step(gradients: list[tf.Tensor]) -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for gradients in steps:
        step([tf.constant(gradient) for gradient in gradients])
    return [variable.numpy() for variable in variables]


def lars() -> keras.optimizers.Optimizer:
    return build_optimizer(
        name="lars", learning_rate=RATE, momentum=MOMENTUM, weight_decay=DECAY, trust_coefficient=TRUST
    )


def sgd() -> keras.optimizers.Optimizer:
    return build_optimizer(name="sgd", learning_rate=RATE, momentum=MOMENTUM, weight_decay=DECAY)


@pytest.mark.parametrize(("optimizer", "trust"), [(sgd, None), (lars, TRUST)])
def test_steps_equal_the_closed_form(optimizer: OptimizerFactory, trust: float | None) -> None:
    generator = np.random.default_rng(SEED)
    weights, steps = arrays(generator), [arrays(generator) for _ in range(5)]
    for ours, expected in zip(run(optimizer(), weights, steps), closed_form(weights, steps, trust=trust), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_lars_moves_a_layer_of_zeros_and_leaves_one_without_gradient() -> None:
    zeros, ones = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    optimizer = build_optimizer(
        name="lars", learning_rate=RATE, momentum=MOMENTUM, weight_decay=0, trust_coefficient=TRUST
    )
    moved, kept = run(optimizer, [zeros, ones], [[ones, zeros]])
    np.testing.assert_allclose(moved, -RATE * ones)
    np.testing.assert_array_equal(kept, ones)


def test_lars_moves_a_bias_of_zeros_at_the_trust_coefficient() -> None:
    """At the whole rate, 4 and more, the first steps would end every ReLU of a network without normalisation."""
    (bias,) = run(lars(), [np.zeros(3, np.float32)], [[np.ones(3, np.float32)]])
    np.testing.assert_allclose(bias, -RATE * TRUST * np.ones(3))


def test_lars_trains_under_the_multi_worker_strategy() -> None:
    generator = np.random.default_rng(SEED)
    x, y = generator.normal(size=(8, 3)).astype(np.float32), generator.normal(size=(8, 1)).astype(np.float32)
    results = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy()):
        with strategy.scope():
            model = keras.Sequential([keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(0.5))])
            model.compile(lars(), "mse")
        model.fit(x, y, batch_size=8, epochs=3, verbose=0, shuffle=False)
        results.append(model.get_weights())
    for alone, distributed in zip(*results, strict=True):
        np.testing.assert_allclose(distributed, alone, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [sgd, lars])
def test_survives_serialisation(optimizer: OptimizerFactory) -> None:
    before = optimizer()
    after = keras.optimizers.deserialize(keras.optimizers.serialize(before))
    assert type(after) is type(before)
    assert after.get_config() == before.get_config()
    assert after.get_config()["weight_decay"] == DECAY


@pytest.mark.parametrize("name", ["adam", "adadelta", "sgd", "lars"])
def test_every_optimizer_of_the_recipe_lowers_a_loss_with_its_defaults(name: str) -> None:
    weight = tf.Variable([[3.0, -2.0]])
    training = {"epochs": 1, "global_batch": 1, "optimizer": {"name": name, "learning_rate": 0.1}}
    settings = Training.model_validate(training).optimizer
    optimizer = build_optimizer(**settings.model_dump(exclude={"base_batch"}))
    for _ in range(5):
        optimizer.minimize(lambda: tf.reduce_sum(weight**2), [weight])
    assert tf.reduce_sum(weight**2) < 13
    assert float(optimizer.learning_rate) == pytest.approx(0.1)

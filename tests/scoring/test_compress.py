"""Pruning and clustering of a Keras model's weights."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.cluster import KMeans

from insitu.scoring.compress import cluster, prune
from insitu.scoring.kernels import kernels


@pytest.fixture
def model() -> tf.keras.Model:
    """Kernels of 144, 2304 and 131 072 weights, the last more than k-means has bins, and biases that are not zero."""
    tf.keras.utils.set_random_seed(3)
    layers = [
        tf.keras.layers.Conv2D(16, 3, bias_initializer="ones"),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.Conv2D(16, 3, bias_initializer="ones"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(512, bias_initializer="ones"),
    ]
    made = tf.keras.Sequential([tf.keras.Input((8, 8, 1)), *layers])
    assert [kernel.shape.num_elements() for kernel in kernels(made).values()] == [144, 2304, 131072]
    return made


def weights(model: tf.keras.Model) -> list[np.ndarray]:
    return [kernel.numpy() for kernel in kernels(model).values()]


def others(model: tf.keras.Model) -> list[np.ndarray]:
    """What is no kernel."""
    names = {kernel.name for kernel in kernels(model).values()}
    return [weight.numpy() for weight in model.weights if weight.name not in names]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.999])
def test_pruning_takes_the_smallest_weights_of_each_layer(model: tf.keras.Model, sparsity: float) -> None:
    before, kept = weights(model), others(model)
    prune(model, sparsity=sparsity)
    for old, new in zip(before, weights(model), strict=True):
        gone = new == 0
        assert gone.sum() == int(sparsity * old.size)
        np.testing.assert_array_equal(new[~gone], old[~gone])
        assert np.abs(old[gone]).max(initial=0) <= np.abs(old[~gone]).min()
    for old, new in zip(kept, others(model), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("clusters", [2, 16, 256])
def test_clusters_are_as_good_as_those_of_all_weights(model: tf.keras.Model, clusters: int) -> None:
    before, kept = weights(model), others(model)
    cluster(model, clusters=clusters)
    for old, new in zip(before, weights(model), strict=True):
        assert len(np.unique(new)) == min(clusters, old.size)
        best = KMeans(min(clusters, old.size), random_state=0).fit(old.reshape(-1, 1)).inertia_
        assert np.square(old - new).sum() <= 1.2 * best + 1e-9  # both begin at random
    for old, new in zip(kept, others(model), strict=True):
        np.testing.assert_array_equal(new, old)


def test_zeros_are_one_of_the_values(model: tf.keras.Model) -> None:
    prune(model, sparsity=0.5)
    before = weights(model)
    cluster(model, clusters=8)
    for old, new in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert len(np.unique(new)) == 8


def test_a_layer_of_few_values_keeps_them(model: tf.keras.Model) -> None:
    first, second, _ = kernels(model).values()
    first.assign(np.where(first.numpy() > 0, 0.5, -0.25))
    second.assign(np.zeros(second.shape))
    cluster(model, clusters=16)
    assert np.unique(first.numpy()).tolist() == [-0.25, 0.5]
    assert not second.numpy().any()

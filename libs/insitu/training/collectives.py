"""What the workers of a `tf.distribute` gang tell each other beside gradients."""

import numpy as np
import tensorflow as tf


def all_gather(rows: np.ndarray) -> np.ndarray:
    """Every worker's rows, by rank.

    Args:
        rows: [n, ...], the same shape on every worker.

    Returns:
        [workers * n, ...] on every worker.
    """
    strategy = tf.distribute.get_strategy()
    local = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(rows))
    return strategy.gather(local, axis=0).numpy()

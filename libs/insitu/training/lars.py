"""Momentum SGD with L2 weight decay, and on top of it LARS, for large batches.

Neither decays biases and normalisation parameters, the variables of one dimension.
"""

from typing import Any

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable(package="insitu")
class DecayedSGD(keras.optimizers.SGD):
    """Momentum SGD with the weight decay in the gradient, as the CNN papers mean it.

    v ← momentum·v - learning_rate·(g + weight_decay·w); w ← w + v (Goyal et al. 2017,
    arXiv:1706.02677, section 3). Keras's own `weight_decay` shrinks w beside the momentum instead,
    which at momentum 0.9 decays a tenth as much for the same number.

    The learning rate stands inside v (their eq. 10), without their momentum correction: where the
    rate changes, in a warmup or at a drop, v keeps the old rate's share for some 1/(1 - momentum) steps.
    """

    def __init__(self, learning_rate: float, momentum: float, weight_decay: float, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.l2 = weight_decay

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """In one pass over the memory; Keras's own takes five."""
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._index_dict[self._var_key(variable)]].handle,
            lr=tf.cast(self.learning_rate, variable.dtype),
            grad=self._direction(gradient, variable),
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_decay": self.l2}

    def _direction(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        return gradient + self.l2 * variable if self.l2 and variable.shape.rank > 1 else gradient


@keras.utils.register_keras_serializable(package="insitu")
class LARS(DecayedSGD):
    """Layer-wise adaptive rate scaling: You, Gitman, Ginsburg 2017, arXiv:1708.03888, algorithm 1.

    The direction g + weight_decay·w of each kernel is scaled by
    trust_coefficient·‖w‖ / (‖g‖ + weight_decay·‖w‖), or by 1 where that is 0 or 0/0.

    Biases and normalisation parameters are scaled by trust_coefficient alone. The algorithm's own rate is 0
    for a bias that starts at 0; the whole global rate, which other implementations take, is some hundred
    times that of momentum SGD, and without normalisation the first steps then end every ReLU.
    """

    def __init__(
        self, learning_rate: float, momentum: float, weight_decay: float, trust_coefficient: float, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, momentum, weight_decay, **kwargs)
        self.trust_coefficient = trust_coefficient

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient}

    def _direction(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        if variable.shape.rank == 1:
            return self.trust_coefficient * gradient
        weight_norm = tf.norm(variable)
        local_rate = tf.math.divide_no_nan(
            self.trust_coefficient * weight_norm, tf.norm(gradient) + self.l2 * weight_norm
        )
        return super()._direction(gradient, variable) * tf.where(local_rate > 0, local_rate, 1.0)

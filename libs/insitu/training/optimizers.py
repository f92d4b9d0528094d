"""Optimisers by name, and how the gradients of several workers come together in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorflow import keras


def build_optimizer(*, name: str, clip_norm: float | None = None, **settings: float) -> keras.optimizers.Optimizer:
    """The optimiser `name`, not yet bound to a model.

    None needs loss scaling under `mixed_bfloat16`: bfloat16 has float32's range.

    Args:
        name: `adam` (Kingma, Ba 2015, arXiv:1412.6980), `adadelta` (Zeiler 2012, arXiv:1212.5701,
            whose own learning rate is 1), or `sgd` or `lars` of `insitu.training.lars`.
        clip_norm: the L2 norm that the gradient of all variables together, averaged over the workers, is scaled down to
            where it is longer.
        settings: `learning_rate`; for sgd and lars also `momentum` and `weight_decay`; for lars also
            `trust_coefficient`. None has a default.
    """
    from tensorflow import keras

    from insitu.training.lars import LARS, DecayedSGD

    optimizers = {
        "adam": keras.optimizers.Adam,
        "adadelta": keras.optimizers.Adadelta,
        "sgd": DecayedSGD,
        "lars": LARS,
    }
    return optimizers[name](**settings, global_clipnorm=clip_norm)


def exchange_in_bf16(optimizer: keras.optimizers.Optimizer) -> None:
    """Have the workers send each other their gradients rounded to bf16, half of the bytes, and sum them in it.

    Under `mixed_bfloat16` a kernel's own gradient is a bf16 number already.
    """
    import tensorflow as tf

    aggregate = optimizer.aggregate_gradients

    def rounded(pairs: list[tuple[tf.Tensor, tf.Variable]]) -> list[tuple[tf.Tensor, tf.Variable]]:
        summed = aggregate([(tf.cast(gradient, tf.bfloat16), variable) for gradient, variable in pairs])
        return [(tf.cast(gradient, variable.dtype), variable) for gradient, variable in summed]

    optimizer.aggregate_gradients = rounded

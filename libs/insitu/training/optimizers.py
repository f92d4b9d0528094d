"""Optimisers by name, from the plain values of a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from insitu.errors import UserError

if TYPE_CHECKING:
    from tensorflow import keras


def build_optimizer(*, name: str, **settings: float) -> keras.optimizers.Optimizer:
    """The optimiser `name`, not yet bound to a model.

    None needs loss scaling under `mixed_bfloat16`: bfloat16 has float32's range.

    Args:
        name: a key of `SETTINGS`.
        settings: `learning_rate` and any other of `SETTINGS[name]`; the rest keep their defaults.

    Raises:
        UserError: unknown name, or a setting that this optimiser does not have.
    """
    if name not in SETTINGS:
        raise UserError("training.optimizer.name", f"no optimiser {name!r}", f"use one of {', '.join(SETTINGS)}")
    for setting in settings:
        if setting not in SETTINGS[name]:
            raise UserError(
                f"training.optimizer.{setting}",
                f"{name} has no such setting",
                f"leave it out; {name} takes {', '.join(SETTINGS[name])}",
            )
    return _BUILDERS[name](**settings)


def _adam(*, learning_rate: float) -> keras.optimizers.Optimizer:
    """Kingma, Ba 2015, arXiv:1412.6980."""
    from tensorflow import keras

    return keras.optimizers.Adam(learning_rate)


def _adadelta(*, learning_rate: float) -> keras.optimizers.Optimizer:
    """Zeiler 2012, arXiv:1212.5701, whose own learning rate is 1."""
    from tensorflow import keras

    return keras.optimizers.Adadelta(learning_rate)


def _sgd(*, learning_rate: float, momentum: float = 0.9, weight_decay: float = 0.0) -> keras.optimizers.Optimizer:
    from insitu.training.lars import DecayedSGD

    return DecayedSGD(learning_rate, momentum, weight_decay)


def _lars(
    *, learning_rate: float, momentum: float = 0.9, weight_decay: float = 0.0, trust_coefficient: float = 1e-3
) -> keras.optimizers.Optimizer:
    from insitu.training.lars import LARS

    return LARS(learning_rate, momentum, weight_decay, trust_coefficient)


_BUILDERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": _adam,
    "sgd": _sgd,
    "adadelta": _adadelta,
    "lars": _lars,
}
SETTINGS = {name: tuple(inspect.signature(builder).parameters) for name, builder in _BUILDERS.items()}

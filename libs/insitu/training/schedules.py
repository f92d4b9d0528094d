"""Learning-rate schedules as pure functions of the step, and the plateau rule.

Steps and epochs count from 0. Nothing here knows a framework.
"""

import math
from dataclasses import dataclass
from typing import Literal


def scaled_rate(rate: float, *, base_batch: int, global_batch: int) -> float:
    """Linear scaling (Goyal et al. 2017, arXiv:1706.02677): k times the batch, k times the rate."""
    return rate * global_batch / base_batch


@dataclass(frozen=True)
class StepDecay:
    """The rate is multiplied by `factor` at the start of each of `epochs`."""

    factor: float
    epochs: tuple[int, ...]

    def multiplier(self, epoch: int) -> float:
        return self.factor ** sum(epoch >= drop for drop in self.epochs)


@dataclass(frozen=True)
class EpochDecay:
    """The rate is multiplied by `factor` at the start of `first_epoch` and of every epoch after it."""

    factor: float
    first_epoch: int

    def multiplier(self, epoch: int) -> float:
        return self.factor ** max(0, epoch - self.first_epoch + 1)


@dataclass(frozen=True)
class LearningRate:
    """Linear warmup to `peak`, then `peak` times the decay.

    Attributes:
        peak: the rate at the end of the warmup.
        steps_per_epoch: optimiser steps in an epoch, for the decay's epochs.
        warmup_steps: length of the warmup; 0 starts at `peak`. The decay's epochs count from the
            start of training, and the decay acts from the end of the warmup on.
        warmup_start: the rate that the warmup rises from (Goyal et al.: the unscaled rate); step 0
            is above it already, so that no step has a rate of 0.
        decay: None holds `peak`.
    """

    peak: float
    steps_per_epoch: int
    warmup_steps: int = 0
    warmup_start: float = 0.0
    decay: StepDecay | EpochDecay | None = None

    def at(self, step: int) -> float:
        """The rate of optimiser step `step`; the last of the `warmup_steps` has `peak`."""
        if step < self.warmup_steps:
            return self.warmup_start + (self.peak - self.warmup_start) * ((step + 1) / self.warmup_steps)
        if self.decay is None:
            return self.peak
        return self.peak * self.decay.multiplier(step // self.steps_per_epoch)


@dataclass
class Plateau:
    """A multiplier that falls by `factor` after `patience` epochs without an improvement by more than `min_delta`.

    The rule of Keras's ReduceLROnPlateau, but as a multiplier, so that it composes with `LearningRate`.
    All of its state is its fields: `dataclasses.asdict` saves it, `Plateau(**saved)` resumes.

    Attributes:
        factor: in (0, 1).
        patience: epochs, at least 1.
        min_delta: in the metric's own units.
        mode: "min" if a smaller value is better, "max" if a larger one is.
        multiplier: the product of the reductions so far.
        best: the best value so far, None before the first.
        stale_epochs: epochs since the last improvement or reduction.
    """

    factor: float
    patience: int
    min_delta: float
    mode: Literal["min", "max"]
    multiplier: float = 1.0
    best: float | None = None
    stale_epochs: int = 0

    def observe(self, value: float) -> float:
        """Take an epoch's metric in; returns the multiplier for the next epoch."""
        if self._improves(value):
            self.best, self.stale_epochs = value, 0
            return self.multiplier
        self.stale_epochs += 1
        if self.stale_epochs >= self.patience:
            self.multiplier *= self.factor
            self.stale_epochs = 0
        return self.multiplier

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        sign = 1 if self.mode == "max" else -1
        return sign * value > sign * self.best + self.min_delta

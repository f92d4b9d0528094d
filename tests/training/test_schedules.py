"""Learning-rate schedules against their closed forms."""

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from insitu.training.schedules import EpochDecay, LearningRate, Plateau, StepDecay, scaled_rate

SEED = 1706
rates = st.floats(1e-6, 10)
lengths = st.integers(1, 500)


def test_rate_grows_with_the_batch() -> None:
    assert scaled_rate(0.0005, base_batch=8, global_batch=8) == 0.0005
    assert scaled_rate(0.0005, base_batch=8, global_batch=64) == pytest.approx(0.004, rel=1e-15)


def test_chexnet_vgg16_schedule_holds_exactly() -> None:
    steps_per_epoch = 10
    schedule = LearningRate(
        peak=0.5, steps_per_epoch=steps_per_epoch, warmup_steps=50, decay=EpochDecay(factor=0.1, first_epoch=50)
    )
    for step in range(60 * steps_per_epoch):
        epoch = step // steps_per_epoch
        if epoch < 5:
            expected = 0.5 * ((step + 1) / 50)
        elif epoch < 50:
            expected = 0.5
        else:
            expected = 0.5 * 0.1 ** (epoch - 49)
        assert schedule.at(step) == expected, f"step {step}"


def test_step_decay_drops_at_its_epochs() -> None:
    schedule = LearningRate(peak=1.0, steps_per_epoch=2, decay=StepDecay(factor=0.5, epochs=(2, 3)))
    assert [schedule.at(step) for step in range(10)] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


@seed(SEED)
@given(peak=rates, warmup_steps=lengths, start=st.floats(0, 1))
def test_warmup_is_a_straight_line_that_ends_at_the_peak(peak: float, warmup_steps: int, start: float) -> None:
    schedule = LearningRate(peak=peak, steps_per_epoch=7, warmup_steps=warmup_steps, warmup_start=start * peak)
    assert schedule.at(0) > 0
    assert schedule.at(warmup_steps) == peak
    for step in range(warmup_steps):
        share = (step + 1) / warmup_steps
        assert schedule.at(step) == pytest.approx(peak * (start * (1 - share) + share), rel=1e-9)


@seed(SEED)
@given(peak=rates, steps_per_epoch=lengths, warmup_epochs=st.integers(0, 3), first_epoch=st.integers(4, 9))
def test_rate_rises_to_the_peak_and_never_again(
    peak: float, steps_per_epoch: int, warmup_epochs: int, first_epoch: int
) -> None:
    warmup_steps = warmup_epochs * steps_per_epoch
    schedule = LearningRate(
        peak=peak, steps_per_epoch=steps_per_epoch, warmup_steps=warmup_steps, decay=EpochDecay(0.1, first_epoch)
    )
    steps = [schedule.at(step) for step in range(12 * steps_per_epoch)]
    assert steps[: warmup_steps + 1] == sorted(steps[: warmup_steps + 1])
    assert steps[max(0, warmup_steps - 1)] == peak
    assert steps[warmup_steps:] == sorted(steps[warmup_steps:], reverse=True)
    assert max(steps) == peak


@seed(SEED)
@given(
    values=st.lists(st.floats(0, 1, width=16), min_size=1, max_size=20),
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 0.125]),
    mode=st.sampled_from(["min", "max"]),
)
def test_plateau_follows_kerass_rule(
    values: list[float], patience: int, min_delta: float, mode: Literal["min", "max"]
) -> None:
    from tensorflow import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0))
    theirs = keras.callbacks.ReduceLROnPlateau("value", factor=0.5, patience=patience, min_delta=min_delta, mode=mode)
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = Plateau(factor=0.5, patience=patience, min_delta=min_delta, mode=mode)
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"value": value})
        assert ours.observe(value) == float(model.optimizer.learning_rate.numpy()), f"epoch {epoch}"


@seed(SEED)
@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=20), cut=st.integers(1, 19))
def test_plateau_resumes_from_its_saved_fields(values: list[float], cut: int) -> None:
    whole = Plateau(factor=0.1, patience=2, min_delta=0.01, mode="max")
    expected = [whole.observe(value) for value in values]
    first = Plateau(factor=0.1, patience=2, min_delta=0.01, mode="max")
    resumed = [first.observe(value) for value in values[:cut]]
    second = Plateau(**json.loads(json.dumps(dataclasses.asdict(first))))
    assert resumed + [second.observe(value) for value in values[cut:]] == expected


def test_plateau_counts_nan_as_no_improvement() -> None:
    plateau = Plateau(factor=0.5, patience=2, min_delta=0.0, mode="min")
    assert [plateau.observe(value) for value in (float("nan"), float("nan"), 3.0, float("nan"))] == [1, 0.5, 0.5, 0.5]
    assert plateau.best == 3.0

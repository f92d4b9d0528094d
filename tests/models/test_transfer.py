"""Starting from a trained trunk."""

import numpy as np
import pytest
from tensorflow import keras

from insitu.errors import UserError
from insitu.models import build
from insitu.models.transfer import set_trunk_trainable, start_from


def squeezenet(*, channels: int = 1, outputs: int = 2) -> keras.Model:
    return build("squeezenet", size=(31, 31), channels=channels, outputs=outputs, activation="sigmoid")


def test_copies_everything_but_the_head() -> None:
    model, source = squeezenet(outputs=2), squeezenet(outputs=14)
    head = model.get_layer("head").get_weights()
    start_from(model, source)
    for ours, theirs in zip(model.weights[:-2], source.weights[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for after, before in zip(model.get_layer("head").get_weights(), head, strict=True):
        np.testing.assert_array_equal(after, before)


def test_copies_the_head_too_where_it_is_kept() -> None:
    model, source = squeezenet(), squeezenet()
    start_from(model, source, keep_head=True)
    for ours, theirs in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_copies_the_moving_statistics_of_batch_normalisation() -> None:
    model, source = (build("resnet50", size=(32, 32), channels=1, outputs=2, activation="sigmoid") for _ in range(2))
    source.get_layer("conv1_bn").moving_mean.assign(np.full(64, 3.0))
    start_from(model, source)
    np.testing.assert_array_equal(model.get_layer("conv1_bn").moving_mean, np.full(64, 3.0))


def test_another_number_of_channels_is_refused_by_its_first_weight() -> None:
    model = squeezenet(channels=1)
    before = model.get_weights()
    with pytest.raises(UserError, match=r"model\.init: conv1/0 is 3x3x3x64 in squeezenet, 3x3x1x64 in squeezenet; "):
        start_from(model, squeezenet(channels=3))
    for ours, untouched in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, untouched)


def test_another_topology_is_refused() -> None:
    other = build("mcnn", size=(64, 64), channels=1, outputs=2, activation="sigmoid", options={"width": 0.25})
    with pytest.raises(UserError, match=r"model\.init: .* absent in mcnn, .* in squeezenet; .* same model\.name"):
        start_from(squeezenet(), other)


def test_source_with_more_layers_is_refused() -> None:
    source = squeezenet()
    deeper = keras.Model(source.input, keras.layers.Dense(4, name="extra")(source.output), name="deeper")
    with pytest.raises(UserError, match=r"model\.init: extra/0 is 2x4 in deeper, absent in squeezenet"):
        start_from(squeezenet(), deeper)


def test_frozen_trunk_leaves_the_head_to_train() -> None:
    model = squeezenet()
    set_trunk_trainable(model, False)
    assert [weight.name for weight in model.trainable_weights] == ["head/kernel:0", "head/bias:0"]
    set_trunk_trainable(model, True)
    assert len(model.trainable_weights) == len(model.weights)

"""Every topology by the same contract, and each by its published size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorflow import keras

from insitu.errors import UserError
from insitu.models import build, check, names
from insitu.models.registry import Normalization

MINIMUM = {"alexnet": 63, "mcnn": 64, "squeezenet": 31}
SEED = 20170401
TRUNK_PARAMETERS = {
    "densenet121": 7_037_504,
    "inception_v1": 5_973_552,
    "resnet50": 23_587_712,
    "squeezenet": 722_496,
    "vgg16": 14_714_688,
}


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy(before)


def smallest(name: str, channels: int = 3) -> keras.Model:
    side = MINIMUM.get(name, 32)
    return build(name, size=(side, side), channels=channels, outputs=5, activation="softmax")


def images(model: keras.Model) -> np.ndarray:
    shape = (2, *model.input_shape[1:])
    return np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8)


def seeded(name: str) -> tuple[keras.Model, list[np.ndarray]]:
    """The smallest model of a seed; its weights and what it answers in training."""
    keras.utils.set_random_seed(SEED)
    model = smallest(name)
    return model, [*model.get_weights(), model(images(model), training=True).numpy()]


@pytest.fixture(scope="module", params=names())
def made(request: pytest.FixtureRequest) -> tuple[keras.Model, list[np.ndarray]]:
    return seeded(request.param)


@pytest.fixture
def model(made: tuple[keras.Model, list[np.ndarray]]) -> keras.Model:
    return made[0]


class TestEveryTopology:
    def test_turns_bytes_into_probabilities(self, model: keras.Model) -> None:
        assert model.input_names == ["image"] and model.inputs[0].dtype == "uint8"
        assert model.output_names == ["scores"]
        scores = model(images(model)).numpy()
        assert scores.shape == (2, 5) and scores.dtype == np.float32
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
        assert not np.array_equal(scores[0], scores[1])

    def test_survives_saving(self, model: keras.Model, tmp_path: Path) -> None:
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(loaded(images(model)), model(images(model)))

    @pytest.mark.parametrize("name", names())
    def test_takes_one_channel_and_computes_in_bfloat16(self, name: str, bfloat16: None) -> None:
        model = smallest(name, channels=1)
        scores = model(np.zeros((2, *model.input_shape[1:]), np.uint8))
        assert scores.dtype == "float32"
        assert {weight.dtype.name for weight in model.weights} == {"float32"}
        assert model.get_layer("head").compute_dtype == "float32"
        convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}

    def test_same_seed_gives_same_weights_and_dropout(self, made: tuple[keras.Model, list[np.ndarray]]) -> None:
        for first, second in zip(made[1], seeded(made[0].name)[1], strict=True):
            np.testing.assert_array_equal(first, second)

    def test_trunk_has_the_published_number_of_parameters(self, model: keras.Model) -> None:
        """AlexNet and M-CNN, below, in the sizes that these are published for."""
        found = model.count_params() - model.get_layer("head").count_params()
        assert found == TRUNK_PARAMETERS.get(model.name, found)

    @pytest.mark.parametrize("name", names())
    def test_refuses_a_smaller_image(self, name: str) -> None:
        side = MINIMUM.get(name, 32)
        with pytest.raises(UserError, match=rf"data\.size: .* too small for {name}; give at least {side}x{side}"):
            check(name, size=(side, side - 1))


class TestTensors:
    @pytest.mark.parametrize("name", ["mcnn", "squeezenet"])
    def test_are_read_as_they_are(self, name: str) -> None:
        side = MINIMUM.get(name, 32)
        model = build(name, size=(side, side + 3), channels=5, outputs=2, activation="softmax", input="tensor")
        assert model.input_names == ["tensor"] and model.inputs[0].dtype == "float32"
        assert model.input_shape == (None, side, side + 3, 5)
        assert "rescale" not in [layer.name for layer in model.layers]
        assert model(np.full((1, *model.input_shape[1:]), -0.5, np.float32)).shape == (1, 2)

    def test_give_what_images_of_the_same_rescaled_pixels_give(self) -> None:
        image = build("squeezenet", size=(31, 31), channels=3, outputs=2, activation="softmax")
        tensor = build("squeezenet", size=(31, 31), channels=3, outputs=2, activation="softmax", input="tensor")
        tensor.set_weights(image.get_weights())
        pixels = images(image)
        np.testing.assert_allclose(tensor(pixels / np.float32(127.5) - 1), image(pixels), atol=1e-6)

    def test_compute_in_bfloat16_where_asked(self, bfloat16: None) -> None:
        model = build("squeezenet", size=(31, 31), channels=2, outputs=2, activation="softmax", input="tensor")
        assert model.get_layer("conv1").compute_dtype == "bfloat16"
        assert model(np.zeros((1, 31, 31, 2), np.float32)).dtype == "float32"

    def test_that_are_too_small_are_refused_by_their_own_key(self) -> None:
        with pytest.raises(
            UserError, match=r"data\.tensor_shape: 64x8 is too small for squeezenet; give at least 31x31"
        ):
            check("squeezenet", size=(64, 8), input="tensor")


def test_alexnet_has_torchvisions_number_of_parameters() -> None:
    assert (
        build("alexnet", size=(224, 224), channels=3, outputs=1000, activation="softmax").count_params() == 61_100_840
    )


def test_mcnn_has_the_papers_number_of_parameters() -> None:
    assert build("mcnn", size=(1024, 1280), channels=3, outputs=13, activation="softmax").count_params() == 42_577_261


def test_mcnn_takes_a_quarter_of_the_channels_and_any_size() -> None:
    model = build("mcnn", size=(128, 150), channels=3, outputs=13, activation="softmax", options={"width": 0.25})
    filters = [model.get_layer(f"path{scale}_conv3").filters for scale in range(7)]
    assert filters == [4, 4, 4, 8, 8, 8, 16]
    assert model.get_layer("head").input_shape == (None, 128)
    assert model.get_layer("mix").output_shape == (None, 2, 3, 256)


def test_mcnn_sees_the_last_pixel_of_an_odd_size() -> None:
    model = build("mcnn", size=(65, 65), channels=1, outputs=2, activation="sigmoid", options={"width": 0.25})
    pixels = np.zeros((2, 65, 65, 1), np.uint8)
    pixels[1, -1, -1] = 255
    scores = model(pixels).numpy()
    assert not np.array_equal(scores[0], scores[1])


def test_vgg16_takes_the_weights_of_keras_applications() -> None:
    model = build("vgg16", size=(32, 32), channels=3, outputs=2, activation="sigmoid")
    theirs = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    for layer in theirs.layers[1:]:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    batch = images(model)
    features = keras.Model(model.input, model.get_layer("head").input)(batch)
    np.testing.assert_allclose(features, theirs(batch / 127.5 - 1), atol=1e-6)


def test_sigmoid_scores_each_label_alone() -> None:
    model = build("squeezenet", size=(31, 31), channels=1, outputs=3, activation="sigmoid")
    model.get_layer("head").set_weights([np.zeros((512, 3), np.float32), np.array([0, 100, -100], np.float32)])
    np.testing.assert_allclose(model(np.zeros((1, 31, 31, 1), np.uint8))[0], [0.5, 1, 0], atol=1e-6)


def test_pixels_are_scaled_to_plus_minus_one() -> None:
    model = build("squeezenet", size=(31, 31), channels=1, outputs=3, activation="sigmoid")
    scaled = model.get_layer("rescale")(np.array([0, 51, 255], np.uint8))
    np.testing.assert_allclose(scaled, [-1, -0.6, 1], atol=1e-6)


def test_unknown_topology_is_told_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r"model\.name: no topology 'densnet'; did you mean densenet121\? .*vgg16"):
        build("densnet", size=(64, 64), channels=3, outputs=2, activation="sigmoid")


def test_unknown_option_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.options: mcnn has no option 'depth'; its options: width"):
        check("mcnn", size=(64, 64), options={"depth": 2})


def test_option_of_another_topology_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.options: vgg16 has no option 'width'; its options: none"):
        check("vgg16", size=(64, 64), options={"width": 0.25})


def test_option_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.options\.width: 0, expected a positive number"):
        check("mcnn", size=(64, 64), options={"width": 0})


def test_unset_normalization_is_the_topologys_own() -> None:
    own, batch = (
        build("densenet121", size=(32, 32), channels=3, outputs=2, activation="sigmoid", normalization=kind)
        for kind in (None, "batch")
    )
    assert [weight.name for weight in own.weights] == [weight.name for weight in batch.weights]


@pytest.mark.parametrize(
    ("name", "kind", "choices"),
    [("vgg16", "batch", "none"), ("resnet50", "none", "batch, group"), ("mcnn", "group", "none")],
)
def test_normalization_that_a_topology_cannot_have_is_refused(name: str, kind: Normalization, choices: str) -> None:
    expected = rf"model\.normalization: {name} cannot have '{kind}'; its choices: {choices}$"
    with pytest.raises(UserError, match=expected):
        check(name, size=(64, 64), normalization=kind)

"""Converted models compute what Keras computes, on both of dllib's engines."""

import json
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import tensorflow as tf
from py4j.protocol import Py4JJavaError
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.sql import SparkSession
from tensorflow import keras

from insitu.bigdl.convert import convert
from insitu.bigdl.converted import Converted
from insitu.errors import UserError
from insitu.models import build, names
from jvm_network import JvmNetwork

SEED = 20190401
ENGINES = ("mklblas", "mkldnn")
SIZES = {"alexnet": ((63, 63), (67, 75)), "mcnn": ((64, 64), (71, 93)), "squeezenet": ((32, 32), (45, 61))}
"""Each topology's small sizes, the second odd; 32x32 and 45x61 for others."""

CLASSES = 5
layers = keras.layers


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
class TestEveryTopology:
    @pytest.mark.parametrize("name", names())
    @pytest.mark.parametrize("odd", [0, 1], ids=["small", "odd"])
    def test_scores_as_keras(self, spark: SparkSession, name: str, odd: int) -> None:
        model = topology(name, SIZES.get(name, ((32, 32), (45, 61)))[odd], "sigmoid" if odd else "softmax")
        converted, images = convert(model), random_images(model, 3)
        expected = model.predict(images, verbose=0)
        for engine in ENGINES:
            network = network_of(spark, model, converted, engine, batch=3)
            network.java.evaluate()
            scores = activate(network.forward(pixels(images)), converted.activation)
            network.java.release()
            np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0, err_msg=engine)
        assert expected.std(axis=0).max() > 0.1, "every image scores alike"

    @pytest.mark.parametrize("name", names())
    def test_weights_come_back_bit_for_bit(self, name: str) -> None:
        model = topology(name, SIZES.get(name, ((45, 61),))[-1])
        converted, weights = convert(model), model.get_weights()
        parameters, statistics = converted.to_flat(weights)
        assert parameters.dtype == statistics.dtype == np.float32
        for ours, theirs in zip(converted.from_flat(parameters, statistics), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
        assert (parameters.size, statistics.size) == (trainable, model.count_params() - trainable)

    @pytest.mark.parametrize(
        ("name", "size", "tolerance"),
        [
            ("inception_v1", (45, 61), 1e-3),
            ("mcnn", (71, 93), 1e-3),
            ("squeezenet", (45, 61), 1e-3),
            # TensorFlow's own float32 gradients are 0.006 and 0.014 away: fifty normalisations and ReLUs and more.
            ("densenet121", (64, 64), 0.04),
            ("resnet50", (64, 64), 0.04),
        ],
    )
    def test_gradients_as_tensorflow(
        self, spark: SparkSession, name: str, size: tuple[int, int], tolerance: float
    ) -> None:
        for engine, error in gradient_errors(spark, topology(name, size), ENGINES, batch=8).items():
            assert error < tolerance, engine


class TestLayers:
    @pytest.mark.parametrize("padding", ["same", "valid"])
    @pytest.mark.parametrize("stride", [1, 2, 3])
    @pytest.mark.parametrize("kind", ["convolution", "max_pooling", "average_pooling"])
    def test_edges(self, spark: SparkSession, kind: str, stride: int, padding: str, engine: str) -> None:
        makes: dict[str, Callable[[int | tuple[int, int]], keras.layers.Layer]] = {
            "convolution": lambda kernel: layers.Conv2D(5, kernel, stride, padding),
            "max_pooling": lambda kernel: layers.MaxPooling2D(kernel, stride, padding),
            "average_pooling": lambda kernel: layers.AveragePooling2D(kernel, stride, padding),
        }
        for size in ((8, 8), (9, 7)):
            for kernel in (1, 2, 3, 4, 5, 7, (3, 6)):
                model = image_model(size, makes[kind](kernel))
                if kind == "average_pooling" and refuses(model, "AveragePooling2D"):
                    assert padding == "same"
                    continue
                assert logits_error(spark, model, engine) < 1e-5, f"{size}, {kernel}"
                assert gradient_error(spark, model, engine, batch=2) < 1e-5, f"{size}, {kernel}"

    def test_average_pooling_that_needs_no_padding_may_be_same(self, spark: SparkSession, engine: str) -> None:
        model = image_model((8, 6), layers.AveragePooling2D(2, 2, "same"))
        assert logits_error(spark, model, engine) < 1e-5

    def test_pooling_wider_than_the_map(self, spark: SparkSession, engine: str) -> None:
        model = image_model((5, 3), layers.MaxPooling2D(8, padding="same"))
        assert logits_error(spark, model, engine) < 1e-5

    def test_zeros_around_a_convolution_and_a_pooling(self, spark: SparkSession, engine: str) -> None:
        def padded(x: tf.Tensor) -> tf.Tensor:
            x = layers.Conv2D(6, 5, 2, use_bias=False)(layers.ZeroPadding2D((2, 1))(x))
            return layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(x)))

        model = image_model((15, 12), padded)
        assert logits_error(spark, model, engine) < 1e-5
        assert gradient_error(spark, model, engine, batch=2) < 1e-5

    @pytest.mark.parametrize("channels", [(3, 5, 7), (16, 16, 32), (16, 4, 16)])
    def test_concatenation_of_any_channels(self, spark: SparkSession, channels: tuple[int, ...], engine: str) -> None:
        def join(x: tf.Tensor) -> tf.Tensor:
            return layers.Conv2D(8, 3)(
                layers.Concatenate()([layers.Conv2D(n, 3, activation="relu")(x) for n in channels])
            )

        model = image_model((9, 9), join)
        assert logits_error(spark, model, engine) < 1e-5
        assert gradient_error(spark, model, engine, batch=2) < 1e-4

    def test_convolutions_with_several_consumers(self, spark: SparkSession, engine: str) -> None:
        # DnnGraph's own backward pass adds their gradients up twice, and shares an addition's between its inputs.
        def tangled(x: tf.Tensor) -> tf.Tensor:
            first = layers.Conv2D(16, 3, padding="same")(x)
            second = layers.Conv2D(16, 3, padding="same")(first)
            total = layers.Add()([first, second])
            third = layers.Conv2D(16, 3, padding="same")(total)
            return layers.Add()([layers.Concatenate()([first, third]), layers.Conv2D(32, 1)(second)])

        model = image_model((8, 8), tangled)
        assert logits_error(spark, model, engine) < 1e-5
        assert gradient_error(spark, model, engine, batch=2) < 1e-5

    def test_additions_of_three_with_shared_inputs(self, spark: SparkSession, engine: str) -> None:
        def sums(x: tf.Tensor) -> tf.Tensor:
            a, b, c = (layers.Conv2D(8, 3, padding="same")(x) for _ in range(3))
            first = layers.Add()([a, b, c])
            second = layers.Add()([c, first, a])
            return layers.Add()([second, b, layers.Conv2D(8, 1)(first)])

        assert gradient_error(spark, image_model((6, 6), sums), engine, batch=2) < 1e-5

    def test_normalization_anywhere(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        assert logits_error(spark, model, engine) < 1e-5
        assert gradient_error(spark, model, engine, batch=4) < 1e-4

    def test_a_dense_layer_after_flattening(self, spark: SparkSession, engine: str) -> None:
        def dense(x: tf.Tensor) -> tf.Tensor:
            x = layers.Flatten()(layers.Conv2D(5, 3, activation="relu")(x))
            return layers.ReLU()(layers.Dense(7)(layers.Dropout(0.0)(x)))

        model = image_model((6, 7), dense)
        assert logits_error(spark, model, engine) < 1e-5
        assert gradient_error(spark, model, engine, batch=2) < 1e-5


class TestStatistics:
    def test_move_as_keras_moves_them(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        converted = convert(model)
        network = network_of(spark, model, converted, engine, batch=4)
        random = np.random.default_rng(SEED)
        for step in range(1, 6):
            images = random.integers(0, 256, (4, *model.input_shape[1:]), dtype=np.uint8)
            network.forward(pixels(images))
            model(images, training=True)
            if step in (1, 5):
                for variable, ours, theirs in zip(model.weights, network.weights(), model.get_weights(), strict=True):
                    np.testing.assert_allclose(
                        ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=variable.name
                    )
        network.java.evaluate()
        images = random_images(model, 4)
        scores = activate(network.forward(pixels(images)), converted.activation)
        np.testing.assert_allclose(scores, model.predict(images, verbose=0), atol=1e-5)

    def test_stay_in_evaluation(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=2)
        before = network.weights()
        network.java.evaluate()
        network.forward(pixels(random_images(model, 2)))
        for ours, theirs in zip(network.weights(), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_come_back(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=2)
        for ours, theirs in zip(network.weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-7)


class TestNetwork:
    def test_sums_gradients_until_they_are_zeroed(self, spark: SparkSession, engine: str) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        network = network_of(spark, model, convert(model), engine, batch=2)

        def learn() -> list[np.ndarray]:
            network.forward(pixels(random_images(model, 2)))
            network.backward(np.ones((2, CLASSES), np.float32))
            return network.gradients()

        once, twice = learn(), learn()
        for one, two in zip(once, twice, strict=True):
            np.testing.assert_allclose(two, 2 * one, rtol=1e-5, atol=1e-6)
        network.java.zeroGradients()
        assert not any(gradient.any() for gradient in network.gradients())
        for one, again in zip(once, learn(), strict=True):
            np.testing.assert_array_equal(again, one)

    def test_computes_with_the_parameters_as_they_are(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=2)
        images = pixels(random_images(model, 2))
        network.java.evaluate()
        network.forward(images)
        model.set_weights([2 * weight for weight in model.get_weights()])
        network.set_weights(model.get_weights())
        expected = logits_model(model)(random_images(model, 2)).numpy()
        np.testing.assert_allclose(network.forward(images), expected, rtol=1e-4, atol=1e-4)

    def test_goes_between_training_and_evaluation(self, spark: SparkSession, engine: str) -> None:
        model = normalizing_model()
        network = network_of(spark, model, convert(model), engine, batch=4)
        images = random_images(model, 4)
        for _ in range(2):
            network.java.training()
            in_training = network.forward(pixels(images))
            np.testing.assert_allclose(in_training, logits_model(model)(images, training=True), atol=2e-5)
            network.java.evaluate()
            evaluated = network.forward(pixels(images))
            np.testing.assert_allclose(evaluated, logits_model(model)(images), atol=2e-5)
        assert np.abs(in_training - evaluated).max() > 0.1

    def test_a_replica_shares_the_parameters_alone(self, spark: SparkSession) -> None:
        model = normalizing_model()
        first = network_of(spark, model, convert(model), "mklblas", batch=2)
        second = first.replica()
        first.parameters = first.parameters + 1
        np.testing.assert_array_equal(second.parameters, first.parameters)
        second.forward(pixels(random_images(model, 2)))
        second.backward(np.ones((2, CLASSES), np.float32))
        assert any(gradient.any() for gradient in second.gradients())
        assert not any(gradient.any() for gradient in first.gradients())
        assert not np.array_equal(first.statistics, second.statistics)

    def test_mkldnn_has_no_replicas(self, spark: SparkSession) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        with pytest.raises(CapturedException, match="mkldnn has one network on an executor"):
            network_of(spark, model, convert(model), "mkldnn", batch=2).replica()

    @pytest.mark.parametrize(
        ("engine", "batch", "message"),
        [("mkl", 2, "engine: mkl, expected mklblas or mkldnn"), ("mklblas", 0, "batch: 0, expected at least 1")],
    )
    def test_refuses_what_it_cannot_build(self, spark: SparkSession, engine: str, batch: int, message: str) -> None:
        converted = convert(image_model((6, 6), layers.Conv2D(4, 3)))
        with pytest.raises(CapturedException, match=message):
            JvmNetwork(spark, converted, engine, batch)

    def test_mkldnn_refuses_another_number_of_rows(self, spark: SparkSession) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        network = network_of(spark, model, convert(model), "mkldnn", batch=2)
        with pytest.raises(Py4JJavaError, match="expected 2 rows, got 3"):
            network.forward(pixels(random_images(model, 3)))

    def test_refuses_another_network_s_statistics(self, spark: SparkSession, engine: str) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        network = network_of(spark, model, convert(model), engine, batch=2)
        with pytest.raises(CapturedException, match="expected 0 statistics, got 3"):
            network.set_statistics(np.zeros(3, np.float32))


class TestDropout:
    def test_keeps_and_scales(self, spark: SparkSession, engine: str) -> None:
        kept = dropping(spark, engine)(1) != 0
        assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / kept.size)

    def test_scales_what_it_keeps(self, spark: SparkSession, engine: str) -> None:
        np.testing.assert_allclose(np.unique(dropping(spark, engine)(1)), [0, 1 / 0.75], rtol=1e-6)

    def test_follows_its_seed(self, spark: SparkSession, engine: str) -> None:
        drop = dropping(spark, engine)
        first, second, again, unseeded = drop(1), drop(2), drop(1), drop(None)
        np.testing.assert_array_equal(again, first)
        assert 0.3 < np.mean(first != second) < 0.45
        assert 0.3 < np.mean(first != unseeded) < 0.45

    def test_does_nothing_in_evaluation(self, spark: SparkSession, engine: str) -> None:
        np.testing.assert_array_equal(dropping(spark, engine, evaluate=True)(1), 1)


class TestConverted:
    def test_says_what_memory_the_layers_take(self) -> None:
        def trunk(x: tf.Tensor) -> tf.Tensor:
            x = layers.Conv2D(4, 1, name="plain")(x)
            return layers.Conv2D(5, 3, 2, activation="relu", name="conv")(x)

        converted = convert(image_model((7, 9), trunk))
        assert [(node.name, node.kind, node.outputs, node.columns) for node in converted.nodes] == [
            ("plain", "convolution", 7 * 9 * 4, 0),
            ("conv", "convolution", 3 * 4 * 5, 3 * 3 * 4 * 3 * 4),
            ("conv/relu", "relu", 3 * 4 * 5, 0),
            ("head", "linear", CLASSES, 0),
        ]
        assert json.loads(converted.topology)["input"] == {"channels": 3, "height": 7, "width": 9, "name": "rescale"}

    def test_lays_variables_end_to_end(self) -> None:
        model = normalizing_model()
        converted = convert(model)
        variables = {variable.name: variable for variable in model.weights}
        for segments in (converted.parameters, converted.statistics):
            end = 0
            for segment in segments:
                assert (segment.offset, segment.shape) == (end, tuple(variables[segment.name].shape))
                assert segment.rank == len(variables[segment.name].shape)
                end += segment.size
        assert len(converted.parameters) + len(converted.statistics) == len(variables)

    def test_leaves_the_ends_to_the_caller(self) -> None:
        converted = convert(image_model((6, 6), layers.Conv2D(4, 3), activation="sigmoid"))
        assert (converted.scale, converted.offset, converted.activation) == (1 / 127.5, -1.0, "sigmoid")

    def test_refuses_another_model_s_weights(self) -> None:
        converted = convert(image_model((6, 6), layers.Conv2D(4, 3)))
        weights = image_model((6, 6), layers.Conv2D(5, 3)).get_weights()
        with pytest.raises(ValueError, match=r"expected weights of the shapes .*\(3, 3, 3, 4\).*\(3, 3, 3, 5\)"):
            converted.to_flat(weights)
        with pytest.raises(ValueError, match=r"expected 437 values, got an array of \(436,\)"):
            converted.from_flat(np.zeros(436, np.float32), np.zeros(0, np.float32))


REFUSED: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "DepthwiseConv2D (layer x)": layers.DepthwiseConv2D(3, name="x"),
    "LayerNormalization (layer x)": layers.LayerNormalization(name="x"),
    "TFOpLambda": lambda x: x + 1.0,
    "Conv2D with groups=3 (layer x)": layers.Conv2D(6, 3, groups=3, name="x"),
    "Conv2D with dilation_rate=(2, 2) (layer x)": layers.Conv2D(4, 3, dilation_rate=2, name="x"),
    "Conv2D with strides=(1, 2) (layer x)": layers.Conv2D(4, 3, (1, 2), name="x"),
    "Conv2D with activation=tanh (layer x)": layers.Conv2D(4, 3, activation="tanh", name="x"),
    "Conv2D with kernel_regularizer=": layers.Conv2D(4, 3, kernel_regularizer="l2"),
    "Dense with use_bias=False (layer x)": lambda x: layers.Dense(4, use_bias=False, name="x")(layers.Flatten()(x)),
    "Dense of a map (layer x)": layers.Dense(4, name="x"),
    "MaxPooling2D with data_format=channels_first (layer x)": layers.MaxPooling2D(
        2, data_format="channels_first", padding="same", name="x"
    ),
    'AveragePooling2D with padding="same" that does not divide its input (layer x)': layers.AveragePooling2D(
        2, padding="same", name="x"
    ),
    "GlobalAveragePooling2D with keepdims=True (layer x)": layers.GlobalAveragePooling2D(keepdims=True, name="x"),
    "BatchNormalization with axis=[1] (layer x)": layers.BatchNormalization(axis=1, name="x"),
    "BatchNormalization with center=False (layer x)": layers.BatchNormalization(center=False, name="x"),
    "BatchNormalization with scale=False (layer x)": layers.BatchNormalization(scale=False, name="x"),
    "BatchNormalization with momentum=1.0 (layer x)": layers.BatchNormalization(momentum=1.0, name="x"),
    "BatchNormalization of flat features (layer x)": lambda x: layers.BatchNormalization(name="x")(layers.Flatten()(x)),
    "frozen Conv2D (layer x)": layers.Conv2D(4, 3, trainable=False, name="x"),
    "ZeroPadding2D with padding=((1, 2), (0, 0)) (layer x)": layers.ZeroPadding2D(((1, 2), (0, 0)), name="x"),
    "ZeroPadding2D before Flatten (layer flatten)": layers.ZeroPadding2D(1),
    'ZeroPadding2D before Conv2D with padding="same" (layer x)': lambda x: layers.Conv2D(
        4, 3, padding="same", name="x"
    )(layers.ZeroPadding2D(1)(x)),
    "ZeroPadding2D before MaxPooling2D but between a ReLU and a valid pooling (layer x)": lambda x: layers.MaxPooling2D(
        3, name="x"
    )(layers.ZeroPadding2D(1)(x)),
    "ZeroPadding2D of (2, 2) before MaxPooling2D of (3, 3) (layer x)": lambda x: layers.MaxPooling2D(3, name="x")(
        layers.ZeroPadding2D(2)(layers.ReLU()(x))
    ),
    "Concatenate with axis=1 (layer x)": lambda x: layers.Concatenate(1, name="x")([x, layers.ReLU()(x)]),
    "Concatenate of a tensor and itself (layer x)": lambda x: layers.Concatenate(name="x")([x, x]),
    "Add of a tensor and itself (layer x)": lambda x: layers.Add(name="x")([x, x]),
    "Add of different shapes (layer x)": lambda x: layers.Add(name="x")([x, layers.AveragePooling2D(7)(x)]),
    "ReLU with max_value=6.0 (layer x)": layers.ReLU(6.0, name="x"),
    "Dropout with noise_shape=(None, 1, 1, 3) (layer x)": layers.Dropout(0.5, (None, 1, 1, 3), name="x"),
    "Activation with activation=softmax (layer x)": layers.Activation("softmax", name="x"),
    "Rescaling but one of a uint8 input (layer x)": layers.Rescaling(2.0, name="x"),
    "ReLU that is called 2 times (layer x)": (lambda relu: lambda x: relu(relu(x)))(layers.ReLU(name="x")),
}


def test_a_float_input_is_taken_as_it_is() -> None:
    """M-CNN pools and convolves its input, and is else the same network."""
    arguments = {"size": (64, 70), "channels": 3, "outputs": 2, "activation": "softmax", "options": {"width": 0.25}}
    image, tensor = (convert(build("mcnn", input=input, **arguments)) for input in ("image", "tensor"))  # type: ignore[arg-type]
    assert (tensor.scale, tensor.offset) == (1, 0)
    assert tensor.topology == image.topology.replace('"rescale"', '"tensor"')


class TestRefusals:
    @pytest.mark.parametrize("problem", REFUSED)
    def test_names_the_layer(self, problem: str) -> None:
        model = image_model((7, 7), REFUSED[problem])
        with pytest.raises(UserError) as refusal:
            convert(model)
        assert str(refusal.value).startswith(f"training.engine: bigdl has no {problem}")
        assert str(refusal.value).endswith("; use training.engine=orca")

    def test_group_normalization(self) -> None:
        model = build("densenet121", size=(32, 32), channels=3, outputs=2, activation="softmax", normalization="group")
        with pytest.raises(
            UserError, match=r"^model.normalization: bigdl has no GroupNormalization \(layer conv1/bn\)"
        ):
            convert(model)

    def test_bfloat16(self) -> None:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            model = build("squeezenet", size=(32, 32), channels=3, outputs=2, activation="softmax")
        finally:
            keras.mixed_precision.set_global_policy("float32")
        with pytest.raises(
            UserError, match=r"^training.precision: bigdl computes in float32, not bfloat16 \(layer conv1"
        ):
            convert(model)

    def test_a_second_input_or_output(self) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        with pytest.raises(UserError, match="models of one input and output, not outputs"):
            convert(keras.Model(model.input, [model.output, model.layers[2].output]))
        other = keras.Input(model.input_shape[1:])
        with pytest.raises(UserError, match="models of one input and output, not inputs"):
            convert(
                keras.Model([model.input, other], layers.Add()([model.output, layers.Flatten()(other)[:, :CLASSES]]))
            )

    def test_an_input_of_another_form(self) -> None:
        with pytest.raises(UserError, match="no input of the shape"):
            convert(image_model((None, None), layers.Conv2D(4, 3), pooled=True))
        image = keras.Input((6, 6, 3), dtype="uint8")
        with pytest.raises(UserError, match=r"no MaxPooling2D of the input before a Rescaling \(layer x\)"):
            convert(keras.Model(image, layers.MaxPooling2D(2, name="x")(image)))
        with pytest.raises(UserError, match=r"no Rescaling by several numbers \(layer x\)"):
            convert(keras.Model(image, layers.Rescaling([1.0, 2.0, 3.0], name="x")(image)))

    def test_an_end_without_scores(self) -> None:
        model = image_model((6, 6), layers.Conv2D(4, 3))
        with pytest.raises(UserError, match="bigdl takes scores by softmax or sigmoid, not head"):
            convert(logits_model(model))
        maps = model.layers[2].output
        with pytest.raises(UserError, match="no softmax of anything but a Dense layer without an activation"):
            convert(keras.Model(model.input, layers.Activation("softmax")(maps)))


@lru_cache(maxsize=2)
def topology(name: str, size: tuple[int, int], activation: str = "softmax") -> keras.Model:
    """A topology with random weights, and dropout of 0."""
    options = {"width": 0.25} if name == "mcnn" else {}
    model = build(name, size=size, channels=3, outputs=CLASSES, activation=activation, options=options)  # type: ignore[arg-type]
    return with_spread_logits(with_random_weights(clone(model, {layers.Dropout: {"rate": 0.0}})))


def image_model(
    size: tuple[int | None, int | None],
    trunk: Callable[[tf.Tensor], tf.Tensor],
    *,
    activation: str = "softmax",
    outputs: int = CLASSES,
    pooled: bool = False,
) -> keras.Model:
    """A trunk between the ends that every model has, with random weights."""
    image = keras.Input((*size, 3), dtype="uint8", name="image")
    features = trunk(layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(image))
    if pooled:
        features = layers.GlobalAveragePooling2D()(features)
    elif features.shape.rank == 4:
        features = layers.Flatten(name="flatten")(features)
    scores = layers.Activation(activation, name="scores")(layers.Dense(outputs, name="head")(features))
    return with_random_weights(keras.Model(image, scores))


def normalizing_model() -> keras.Model:
    """Batch normalisation before a convolution, a ReLU, a sum and the head, of odd and even channels."""

    def trunk(x: tf.Tensor) -> tf.Tensor:
        x = layers.Conv2D(5, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.BatchNormalization(epsilon=1e-3)(layers.Conv2D(24, 3)(x))
        left = layers.Conv2D(16, 3, padding="same")(layers.ReLU()(x))
        right = layers.BatchNormalization(momentum=0.5)(layers.MaxPooling2D(3, 1, "same")(x))
        joined = layers.BatchNormalization()(layers.Concatenate()([left, right]))
        return layers.Add()([joined, layers.BatchNormalization()(layers.Conv2D(40, 1)(x))])

    return image_model((9, 8), trunk)


def clone(model: keras.Model, changes: dict[type, dict[str, object]]) -> keras.Model:
    """The model with its weights and some options of some kinds of layer changed."""

    def changed(layer: keras.layers.Layer) -> keras.layers.Layer:
        options = [options for kind, options in changes.items() if isinstance(layer, kind)]
        return layer.from_config(layer.get_config() | (options[0] if options else {}))

    cloned = keras.models.clone_model(model, clone_function=changed)
    cloned.set_weights(model.get_weights())
    return cloned


def with_random_weights(model: keras.Model) -> keras.Model:
    """Kernels that keep the variance through a ReLU, and everything else far from where Keras starts it."""
    random = np.random.default_rng(SEED)
    weights = []
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.name.rsplit("/")[-1]
        if name.startswith(("gamma", "moving_variance")):
            weights.append(random.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            weights.append(random.normal(0, 0.2, shape))
        else:
            weights.append(random.normal(0, math.sqrt(2 / max(1, math.prod(shape[:-1]))), shape))
    model.set_weights(weights)
    return model


def with_spread_logits(model: keras.Model) -> keras.Model:
    """Logits that differ from image to image by about 1, around 0."""
    logits = logits_model(model).predict(random_images(model, 4), verbose=0)
    kernel, bias = model.get_layer("head").get_weights()
    scale = 1 / logits.std(axis=0).mean()
    model.get_layer("head").set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])
    return model


def random_images(model: keras.Model, count: int) -> np.ndarray:
    """uint8 [B, H, W, C], the same for every call."""
    return np.random.default_rng(SEED).integers(0, 256, (count, *model.input_shape[1:]), dtype=np.uint8)


def pixels(images: np.ndarray) -> np.ndarray:
    """As the models rescale them."""
    return images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def network_of(spark: SparkSession, model: keras.Model, converted: Converted, engine: str, *, batch: int) -> JvmNetwork:
    network = JvmNetwork(spark, converted, engine, batch)
    network.set_weights(model.get_weights())
    return network


def logits_model(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("head").output)


def activate(logits: np.ndarray, activation: str) -> np.ndarray:
    return getattr(tf.nn, activation)(logits).numpy()


def refuses(model: keras.Model, kind: str) -> bool:
    try:
        convert(model)
    except UserError as error:
        assert kind in str(error)
        return True
    return False


def logits_error(spark: SparkSession, model: keras.Model, engine: str) -> float:
    """The largest difference of evaluated logits from Keras's, relative to the largest logit."""
    images = random_images(model, 2)
    network = network_of(spark, model, convert(model), engine, batch=2)
    network.java.evaluate()
    ours, theirs = network.forward(pixels(images)), logits_model(model)(images).numpy()
    network.java.release()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def gradient_error(spark: SparkSession, model: keras.Model, engine: str, *, batch: int) -> float:
    """As `gradient_errors`, of one engine."""
    return gradient_errors(spark, model, (engine,), batch=batch)[engine]


def gradient_errors(
    spark: SparkSession, model: keras.Model, engines: tuple[str, ...], *, batch: int
) -> dict[str, float]:
    """How far the gradients of a mean cross-entropy are from TensorFlow's in float64: ‖ours - theirs‖ / ‖theirs‖."""
    converted, images = convert(model), random_images(model, batch)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(batch) % CLASSES]
    theirs = exact_gradients(model, converted, images, labels)
    errors = {}
    for engine in engines:
        network = network_of(spark, model, converted, engine, batch=batch)
        logits = network.forward(pixels(images))
        network.backward((activate(logits, "softmax") - labels) / np.float32(batch))
        difference = sum(np.square(a - b).sum() for a, b in zip(network.gradients(), theirs, strict=True))
        errors[engine] = math.sqrt(difference / sum(np.square(b).sum() for b in theirs))
        network.java.release()
    return errors


def exact_gradients(
    model: keras.Model, converted: Converted, images: np.ndarray, labels: np.ndarray
) -> list[np.ndarray]:
    """TensorFlow's in float64, in the order of the flat vector."""
    exact = clone(model, {layers.InputLayer: {}, layers.Layer: {"dtype": "float64"}})
    head = logits_model(exact)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, head(images, training=True)))
    gradients = tape.gradient(loss, [exact.weights[variable.index] for variable in converted.parameters])
    return [gradient.numpy() for gradient in gradients]


def dropping(spark: SparkSession, engine: str, *, evaluate: bool = False) -> Callable[[int | None], np.ndarray]:
    """What a dropout of a quarter makes of ones, 64 x 108 of them, given the seed or None."""
    model = image_model((6, 6), lambda x: layers.Dropout(0.25)(layers.Flatten()(x)), outputs=108)
    model.set_weights([np.eye(108), np.zeros(108)])
    network = network_of(spark, model, convert(model), engine, batch=64)
    if evaluate:
        network.java.evaluate()
    ones = np.ones((64, 6, 6, 3), np.float32)

    def drop(seed: int | None) -> np.ndarray:
        if seed is not None:
            network.java.seedDropout(seed)
        return network.forward(ones)

    return drop

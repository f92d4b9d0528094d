"""What the conversion writes, and the layers that it refuses by name."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from converted_models import CLASSES, image_model, logits_model, normalizing_model
from insitu.bigdl.convert import convert
from insitu.errors import UserError
from insitu.models import build

layers = keras.layers


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
        model = image_model((7, 7), layers.GroupNormalization(3, name="x"))
        with pytest.raises(UserError, match=r"^model.normalization: bigdl has no GroupNormalization \(layer x\)"):
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

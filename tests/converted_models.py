"""Small Keras models with random weights, and how far the JVM's networks are from them.

Legend: B batch, H, W height and width, C channels, K classes.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import tensorflow as tf
from pyspark.sql import SparkSession
from tensorflow import keras

from insitu.bigdl.convert import convert
from insitu.bigdl.converted import Converted
from insitu.models import build
from jvm_network import JvmNetwork

SEED = 20190401
ENGINES = ("mklblas", "mkldnn")
CLASSES = 5
layers = keras.layers


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


def logits_error(spark: SparkSession, model: keras.Model, engine: str) -> float:
    """As `logits_errors`, of one engine."""
    return logits_errors(spark, model, (engine,))[engine]


def logits_errors(spark: SparkSession, model: keras.Model, engines: tuple[str, ...]) -> dict[str, float]:
    """The largest difference of evaluated logits from Keras's, relative to the largest logit."""
    converted, images = convert(model), random_images(model, 2)
    theirs = logits_model(model)(images).numpy()
    errors = {}
    for engine in engines:
        network = network_of(spark, model, converted, engine, batch=2)
        network.java.evaluate()
        ours = network.forward(pixels(images))
        network.java.release()
        errors[engine] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return errors


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

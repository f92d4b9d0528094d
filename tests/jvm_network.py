"""A network of the JVM's, given and giving numpy arrays."""

from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from insitu.bigdl.converted import Converted
from insitu.bigdl.vectors import read_vector, write_vector


class JvmNetwork:
    """`Network` behind py4j; images are [B, H, W, C] as Keras has them, already rescaled."""

    def __init__(self, spark: SparkSession, converted: Converted, engine: str, batch: int) -> None:
        self._jvm = _Jvm.of(spark)
        self._converted = converted
        self.java = self._jvm.network.build(converted.topology, engine, batch)

    def replica(self) -> "JvmNetwork":
        copy = object.__new__(JvmNetwork)
        copy.__dict__ = self.__dict__ | {"java": self.java.replica()}
        return copy

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.parameters, statistics = self._converted.to_flat(weights)
        self.set_statistics(statistics)

    def set_statistics(self, values: np.ndarray) -> None:
        self.java.setStatistics(self._jvm.floats(values))

    def weights(self) -> list[np.ndarray]:
        return self._converted.from_flat(self.parameters, self.statistics)

    @property
    def statistics(self) -> np.ndarray:
        return self._jvm.numpy(self.java.statistics(), sum(variable.size for variable in self._converted.statistics))

    @property
    def parameters(self) -> np.ndarray:
        return self._tensor_numpy(self.java.parameters())

    @parameters.setter
    def parameters(self, values: np.ndarray) -> None:
        self.java.parameters().copy(self._tensor(values))

    def gradients(self) -> list[np.ndarray]:
        """Of the trainable variables, shaped as Keras has them and in the order of the flat vector."""
        flat = self._tensor_numpy(self.java.gradients())
        return [variable.from_segment(flat[variable.segment]) for variable in self._converted.parameters]

    def forward(self, images: np.ndarray) -> np.ndarray:
        """float32 [B, H, W, C] → logits [B, K]."""
        self._input = self._tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        logits = self._tensor_numpy(self.java.forward(self._input))
        return logits.reshape(len(images), -1)

    def backward(self, gradient: np.ndarray) -> None:
        """Of the last forward pass; the loss's gradient with respect to the logits, float32 [B, K]."""
        self.java.backward(self._input, self._tensor(gradient))

    def _tensor(self, array: np.ndarray) -> Any:
        return self._jvm.tensor(self._jvm.floats(array), array.shape)

    def _tensor_numpy(self, tensor: Any) -> np.ndarray:
        return self._jvm.numpy(tensor.storage().array(), tensor.nElement())


class _Jvm:
    """Scala's objects, each looked up once: py4j asks the JVM for every dot of a name."""

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext
        bigdl = context._jvm.com.intel.analytics.bigdl
        dllib = bigdl.dllib.tensor
        self._gateway = context._gateway
        self._int = context._jvm.int
        self._hadoop = context._jsc.hadoopConfiguration()
        self._vectors = bigdl.insitu.Vectors
        self._tensor = getattr(getattr(dllib, "Tensor$"), "MODULE$")
        numeric = getattr(getattr(dllib, "TensorNumericMath$TensorNumeric$NumericFloat$"), "MODULE$")
        self._of_float = (context._jvm.scala.reflect.ClassTag.Float(), numeric)
        self.network = bigdl.insitu.Network

    @staticmethod
    @lru_cache(maxsize=1)
    def of(spark: SparkSession) -> "_Jvm":
        return _Jvm(spark)

    def tensor(self, floats: Any, shape: tuple[int, ...]) -> Any:
        sizes = self._gateway.new_array(self._int, len(shape))
        for dimension, size in enumerate(shape):
            sizes[dimension] = size
        return self._tensor.apply(floats, sizes, *self._of_float)

    def floats(self, array: np.ndarray) -> Any:
        with TemporaryDirectory() as scratch:
            write_vector(array.ravel(), f"file://{scratch}/values")
            return self._vectors.read(f"file://{scratch}/values", self._hadoop)

    def numpy(self, floats: Any, count: int) -> np.ndarray:
        with TemporaryDirectory() as scratch:
            self._vectors.append(floats, f"{scratch}/values")
            return read_vector(f"file://{scratch}/values")[:count]

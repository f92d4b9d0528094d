"""The JVM's data path behind py4j: the project's classes, and how values come and go."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

NO_CHANGES = {"flip": False, "rotateDegrees": 0, "crop": 0, "brightness": 0, "contrast": 0, "color": 0}
EVERY_CHANGE = {"flip": True, "rotateDegrees": 20, "crop": 0.3, "brightness": 0.2, "contrast": 0.3, "color": 0.1}


class Jvm:
    """The driver's JVM."""

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext
        self.spark = spark
        self.java = context._jvm
        self.classes = self.java.com.intel.analytics.bigdl.insitu
        self.hadoop = context._jsc.hadoopConfiguration()
        self._new_array = context._gateway.new_array

    def array(self, kind: Any, values: Sequence[Any]) -> Any:
        made = self._new_array(kind, len(values))
        for index, value in enumerate(values):
            made[index] = value
        return made

    def doubles(self, values: Sequence[float]) -> Any:
        return self.array(self.java.double, [float(value) for value in values])

    def floats(self, values: Any, *shape: int) -> np.ndarray:
        """A Java float[] as an array."""
        buffer = self.java.java.nio.ByteBuffer.allocate(4 * len(values))
        buffer.order(self.java.java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values)
        return np.frombuffer(buffer.array(), "<f4").reshape(shape)

    def decode(self, payload: bytes | None, height: int, width: int, channels: int) -> np.ndarray:
        pixels = self.classes.Images.decode(payload, height, width, channels)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)

    def augment(self, **changes: Any) -> Any:
        values = NO_CHANGES | changes
        return self.classes.Augment(values["flip"], *(float(value) for value in list(values.values())[1:]))

    def shard(self, *pieces: tuple[str, int, Sequence[int]]) -> Any:
        made = [
            self.classes.Piece(path, group, self.array(self.java.int, [int(row) for row in rows]))
            for path, group, rows in pieces
        ]
        return self.classes.Shard(self.array(self.classes.Piece, made))

    def source(self, **values: Any) -> Any:
        usual = {"input": "image", "inputForm": "encoded", "label": "label", "labelForm": "integer", "labelWidth": 1}
        return self.classes.Source(*(usual | {"height": 8, "width": 8, "channels": 1} | values).values())

    def training(self, shard: Any, source: Any, **changes: Any) -> Any:
        usual = {"augment": self.augment(), "seed": 5, "localBatch": 4, "windowRows": 13, "rank": 0, "steps": 11}
        values = usual | {"firstStep": 0, "threads": 2} | changes
        return self.classes.TrainingBatches(shard, source, *values.values(), self.hadoop)

    def validation(self, shard: Any, source: Any, *, local_batch: int = 5, window: int = 13, threads: int = 2) -> Any:
        return self.classes.ValidationBatches(shard, source, local_batch, window, threads, self.hadoop)

    def rows(self, batch: Any, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """A batch's images [B, C, h, w] and labels [B, K]."""
        shape = batch.rows(), source.channels(), source.height(), source.width()
        return self.floats(batch.inputs(), *shape), self.floats(batch.labels(), batch.rows(), source.labelWidth())

    def in_order(self, shard: Any, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """All of a shard's rows as they are stored."""
        with closing(self.validation(shard, source)) as batches:
            parts = []
            while batches.hasNext():
                parts.append(self.rows(batches.next(), source))
        images, labels = zip(*parts, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def threads(self) -> list[str]:
        """Names of the data path's threads that are alive."""
        running = self.java.java.lang.Thread.getAllStackTraces().keySet()
        return [thread.getName() for thread in running if thread.getName().startswith("insitu-")]

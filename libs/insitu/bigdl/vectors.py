"""Vectors as files of little-endian float32, on any file system; `jvm/Vectors.scala` is the other side."""

import numpy as np

from insitu.bigdl.converted import Converted
from insitu.cluster.filesystem import open_filesystem


def write_vector(values: np.ndarray, uri: str) -> None:
    """Write [N], as float32."""
    file_system, path = open_filesystem(uri)
    with file_system.open(path, "wb") as out:
        out.write(values.astype("<f4").tobytes())


def read_vector(uri: str) -> np.ndarray:
    """float32 [N]."""
    file_system, path = open_filesystem(uri)
    with file_system.open(path, "rb") as file:
        return np.frombuffer(file.read(), "<f4").copy()


def write_start(converted: Converted, weights: list[np.ndarray], directory: str) -> None:
    """Write `parameters` and `statistics`, the flat form of Keras's weights."""
    for name, values in zip(("parameters", "statistics"), converted.to_flat(weights), strict=True):
        write_vector(values, f"{directory}/{name}")

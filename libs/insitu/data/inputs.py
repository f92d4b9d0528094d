"""What a row becomes for the network: an image or a tensor.

Legend: B rows of a batch, h, w, C the model's input.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from insitu.data.columns import ImageColumn, TensorColumn
from insitu.data.decode import BadImage, decode, decode_sized
from insitu.data.tensors import BadTensor, read_tensors

_MEAN_STRIDE = 4

Each = Callable[[Callable[[int], str], range], Iterable[str]]
"""Calls a function with every number of a range: `map`, or that of a pool of threads."""


@dataclass(frozen=True)
class Read:
    """Rows of a batch that were read for scoring.

    Attributes:
        values: [B, h, w, C] as the model takes them, 0 where a row cannot be read.
        faults: for each row why it cannot be read, or "".
        sizes: int32 [B, 2], the stored height and width of images, 0 where a row has none.
    """

    values: np.ndarray
    faults: list[str]
    sizes: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """float64 [B]: of a tensor's numbers; of an image, every fourth pixel both ways, 0..1."""
        if self.values.dtype != np.uint8:
            return self.values.mean(axis=(1, 2, 3))
        return self.values[:, ::_MEAN_STRIDE, ::_MEAN_STRIDE].mean(axis=(1, 2, 3)) / 255


@dataclass(frozen=True)
class ImageInput:
    """Images, encoded until a batch needs them.

    Attributes:
        column: where they are.
        size: (h, w) that they are brought to.
        channels: C.
    """

    column: ImageColumn
    size: tuple[int, int]
    channels: int

    dtype = "uint8"
    """Of the model's input."""
    stored_dtype = "string"
    stored_shape = ()
    """Of a row as `stored` gives it."""
    held_bytes = 0
    """What a row in memory takes at least, in bytes; images take what they take in the file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, C)."""
        return (*self.size, self.channels)

    def faults(self, batch: pa.RecordBatch) -> Iterator[str]:
        """For each row why it cannot be decoded, or ""."""
        for payload in self.column.payloads(batch):
            try:
                decode(payload, size=None, channels=3)
            except BadImage as error:
                yield str(error)
            else:
                yield ""

    def stored(self, batch: pa.RecordBatch) -> np.ndarray:
        """The rows' encoded images, object [B]."""
        return np.array([payload or b"" for payload in self.column.payloads(batch)], object)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """uint8 [B, h, w, C]; raises `BadImage`."""
        return np.stack([decode(payload, size=self.size, channels=self.channels) for payload in stored])

    def read(self, batch: pa.RecordBatch, *, each: Each = map) -> Read:
        """Decode a batch's images, those that can be."""
        return self.read_stored(self.stored(batch), each=each)

    def read_stored(self, stored: np.ndarray, *, each: Each = map) -> Read:
        """The same, of what `stored` gave."""
        values = np.zeros((len(stored), *self.shape), self.dtype)
        sizes = np.zeros((len(stored), 2), np.int32)

        def read_row(row: int) -> str:
            try:
                values[row], sizes[row] = decode_sized(stored[row], size=self.size, channels=self.channels)
            except BadImage as error:
                return str(error)
            return ""

        return Read(values, list(each(read_row, range(len(stored)))), sizes)


@dataclass(frozen=True)
class TensorInput:
    """Tensors, read from Arrow a batch at a time.

    Attributes:
        column: where they are.
        tensor_shape: (h, w, C), or (h, w) of a map of one channel.
    """

    column: TensorColumn
    tensor_shape: tuple[int, ...]

    dtype = "float32"
    """Of the model's input."""
    stored_dtype = "float32"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Of a row as `stored` gives it."""
        return self.shape

    @property
    def held_bytes(self) -> int:
        """What a row in memory takes at least, in bytes, however well the file is compressed."""
        return 4 * math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, C)."""
        height, width, channels = (*self.tensor_shape, 1)[:3]
        return height, width, channels

    def faults(self, batch: pa.RecordBatch) -> Iterator[str]:
        """For each row why it cannot be read, or ""."""
        _, faults = self._read(batch)
        return (faults.get(row, "") for row in range(batch.num_rows))

    def stored(self, batch: pa.RecordBatch) -> np.ndarray:
        """float32 [B, h, w, C]; raises `BadTensor`."""
        tensors, faults = self._read(batch)
        if faults:
            raise BadTensor(next(iter(faults.values())))
        return tensors

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """What `stored` gave: float32 [B, h, w, C]."""
        return stored

    def read(self, batch: pa.RecordBatch, *, each: Each = map) -> Read:
        """Read a batch's tensors, those that can be; all at once, without `each`."""
        tensors, faults = self._read(batch)
        rows = range(batch.num_rows)
        return replace(self.read_stored(tensors), faults=[faults.get(row, "") for row in rows])

    def read_stored(self, stored: np.ndarray) -> Read:
        """The same, of what `stored` gave."""
        return Read(stored, [""] * len(stored), np.zeros((len(stored), 2), np.int32))

    def _read(self, batch: pa.RecordBatch) -> tuple[np.ndarray, dict[int, str]]:
        column = batch.column(batch.schema.get_field_index(self.column.name))
        return read_tensors(column, shape=self.tensor_shape)


Input = ImageInput | TensorInput

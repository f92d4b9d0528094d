"""How fast encoded images come out of Parquet as NumPy arrays, without decoding them.

    python benchmarks/reading.py

The reader that jobs use, in one thread, against petastorm's own batch reader in one thread and with its pool of
ten; a pass to warm up, then three each in turns, of which the best counts.
"""

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow.parquet as pq

from insitu.data.columns import find_image, find_label
from insitu.data.inputs import ImageInput
from insitu.data.readers import PyArrowReader
from lines import chosen, emit
from xrays import xrays

_ROWS = 10_240
_TURNS = 3


def main() -> None:
    chosen(__doc__, names=["reading"])
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
    data = xrays(_ROWS)
    reads: dict[str, Callable[[Path], int]] = {
        "insitu's PyArrowReader": _pyarrow,
        "petastorm make_batch_reader, dummy pool": lambda data: _petastorm(data, "dummy"),
        "petastorm make_batch_reader, thread pool": lambda data: _petastorm(data, "thread"),
    }
    best = dict.fromkeys(reads, 0.0)
    for turn in range(1 + _TURNS):
        for name, read in reads.items():
            speed = _rows_per_second(read, data)
            if turn:
                best[name] = max(best[name], speed)
    subject, *peers = best.items()
    for peer in peers:
        emit("reading", subject=subject, peer=peer, unit="rows/s")


def _rows_per_second(read: Callable[[Path], int], data: Path) -> float:
    started = time.perf_counter()
    rows = read(data)
    return rows / (time.perf_counter() - started)


def _pyarrow(data: Path) -> int:
    """Read every row once; returns how many."""
    reader, path, rows = PyArrowReader(), str(data / "part-0.parquet"), 0
    file = pq.ParquetFile(path)
    images, labels = find_image(file.schema_arrow, name=None), find_label(file.schema_arrow, name=None)
    encoded = ImageInput(images, size=(224, 224), channels=3)
    for row_group in range(file.num_row_groups):
        for batch in reader.batches(path, row_group, [images.name, labels.name]):
            rows += len(list(zip(encoded.stored(batch), labels.read(batch), strict=True)))
    return rows


def _petastorm(data: Path, pool: str) -> int:
    """Read every row once; returns how many."""
    from petastorm import make_batch_reader

    with (
        redirect_stdout(sys.stderr),  # petastorm prints there
        make_batch_reader(
            data.as_uri(),
            schema_fields=["image", "labels"],
            reader_pool_type=pool,
            num_epochs=1,
            shuffle_row_groups=False,
        ) as reader,
    ):
        return sum(len(batch.image) for batch in reader)


if __name__ == "__main__":
    main()

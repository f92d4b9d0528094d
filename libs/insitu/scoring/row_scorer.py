"""The scoring of rows in a Python worker: decode, infer, and say what cannot be read.

Legend: B rows of a batch, h, w, C a model's input, K a model's classes, M models.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from insitu.data.inputs import Input, Read
from insitu.scoring.ir import Predict
from insitu.scoring.shipped import ShippedModel, load

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
R = TypeVar("R")

COLUMN = "input"
"""What `RowScorer` calls the column that it reads."""
FAULT, MEAN, HEIGHT, WIDTH, SCORES = "fault", "input_mean", "input_height", "input_width", "scores"
NOT_FINITE = "the model's scores are not finite"
RESULT = f"struct<{FAULT}: string, {MEAN}: float, {HEIGHT}: int, {WIDTH}: int, {SCORES}: array<array<float>>>"
"""What becomes of a row, as a Spark type.

`fault`: why it cannot be read, null where it can; only then the others are not null. `input_mean`: `Read.means` of what
the first model reads. `input_height`, `input_width`: of an image as it is stored, null of a tensor. `scores`: [M][K].
"""


@dataclass(frozen=True)
class RowScorer:
    """Scores rows with several models; sent to the executors.

    Attributes:
        models: M of them, with batches of one size.
        inputs: what each reads, of a column called `COLUMN`; what several read alike is read once.
        kind: Arrow's type of that column.
    """

    models: tuple[ShippedModel, ...]
    inputs: tuple[Input, ...]
    kind: pa.DataType

    def __call__(self, columns: "Iterator[pd.Series | pd.DataFrame]") -> "Iterator[pd.DataFrame]":
        """Spark's batches of the column, a structure's as a table → `RESULT`, a row each, in batches of our own size.

        A batch is decoded while the one before it is inferred, by as many threads as a task has cores.
        """
        predictions = [load(model) for model in self.models]
        with ThreadPoolExecutor(self.models[0].threads) as decoders, ThreadPoolExecutor(1) as ahead:

            def read(batch: pa.RecordBatch) -> dict[Input, Read]:
                return {input: input.read(batch, each=decoders.map) for input in dict.fromkeys(self.inputs)}

            for reads in _one_ahead(ahead, read, self._batches(columns)):
                yield self._result(reads, predictions)

    def _batches(self, columns: "Iterable[pd.Series | pd.DataFrame]") -> Iterator[pa.RecordBatch]:
        rows = self.models[0].rows
        for column in columns:
            whole = pa.RecordBatch.from_arrays([_to_arrow(column, self.kind)], [COLUMN])
            yield from (whole.slice(start, rows) for start in range(0, len(column), rows))

    def _result(self, reads: dict[Input, Read], predictions: list[Predict]) -> "pd.DataFrame":
        import pandas as pd

        scores = [predict(reads[input].values) for predict, input in zip(predictions, self.inputs, strict=True)]
        first = reads[self.inputs[0]]
        unusable = [_not_finite(answers) for answers in scores]
        told = [*(read.faults for read in reads.values()), *unusable]
        faults = [next(filter(None, row), None) for row in zip(*told, strict=True)]
        good = np.array([fault is None for fault in faults])
        sized = good & (first.sizes[:, 0] > 0)
        return pd.DataFrame(
            {
                FAULT: faults,
                MEAN: np.where(good, first.means, np.nan),
                HEIGHT: pd.Series(first.sizes[:, 0], dtype="Int32").where(sized),
                WIDTH: pd.Series(first.sizes[:, 1], dtype="Int32").where(sized),
                SCORES: [row if fault is None else None for *row, fault in zip(*scores, faults, strict=True)],
            }
        )


def _not_finite(scores: np.ndarray) -> list[str]:
    """Of scores [B, K] a fault each, "" where there is none: to Spark NaN is above every threshold."""
    return ["" if good else NOT_FINITE for good in np.isfinite(scores).all(axis=1)]


def _one_ahead(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What a function makes of each item; the next one is made while the caller works on one."""
    pending = None
    for item in items:
        following = pool.submit(function, item)
        if pending is not None:
            yield pending.result()
        pending = following
    if pending is not None:
        yield pending.result()


def _to_arrow(column: "pd.Series | pd.DataFrame", kind: pa.DataType) -> pa.Array:
    if not pa.types.is_struct(kind):
        return pa.Array.from_pandas(column, type=kind)
    fields = [kind.field(i) for i in range(kind.num_fields)]
    return pa.StructArray.from_arrays(
        [pa.Array.from_pandas(column[field.name], type=field.type) for field in fields], fields=fields
    )

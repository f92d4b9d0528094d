"""A model's answers for the validation split, from `predictions.parquet`.

Legend: N rows, K classes.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Predictions:
    """Labels and scores of the same rows.

    Attributes:
        labels: multilabel: 0/1 int64 [N, K]; multiclass: 0..K-1 int64 [N].
        scores: float32 [N, K] in 0..1.
        rows: where each of the N rows is stored, for a person to read.
    """

    labels: np.ndarray
    scores: np.ndarray
    rows: list[str]

    @property
    def multilabel(self) -> bool:
        return self.labels.ndim == 2

    @cached_property
    def answers(self) -> np.ndarray:
        """Multilabel: which labels score over 0.5, bool [N, K]; multiclass: the class that scores highest, int [N]."""
        return self.scores > 0.5 if self.multilabel else self.scores.argmax(axis=1)

    def truth(self, k: int) -> np.ndarray:
        """bool [N]: the rows that are of class k."""
        return self.labels[:, k] > 0 if self.multilabel else self.labels == k

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows labelled as, and rows predicted as, each class: two int [K]."""
        if self.multilabel:
            return self.labels.sum(axis=0), self.answers.sum(axis=0)
        classes = self.scores.shape[1]
        return np.bincount(self.labels, minlength=classes), np.bincount(self.answers, minlength=classes)

    def confusion(self, classes: np.ndarray) -> np.ndarray:
        """Rows by label (down) and answer (across), int [k, k], of `classes` int [k] alone; multiclass only."""
        size = self.scores.shape[1]
        pairs = np.bincount(self.labels * size + self.answers, minlength=size * size).reshape(size, size)
        return pairs[np.ix_(classes, classes)]


def read_predictions(path: Path) -> Predictions:
    """Read `path`, string; `row_group` and `row`, int64; `label`, int64 or list of 0/1; `scores`, list of float32."""
    table = pq.read_table(path)
    places = zip(*(table[name].to_pylist() for name in ("path", "row_group", "row")), strict=True)
    return Predictions(
        labels=_array(table["label"]),
        scores=_array(table["scores"]),
        rows=[f"row {row} of row group {group} in {path.rpartition('/')[2]}" for path, group, row in places],
    )


def validated_rows(path: Path) -> str:
    """What names the rows of a predictions file, whatever their order: a digest of where each is stored."""
    table = pq.read_table(path, columns=["path", "row_group", "row"])
    files = (file.rpartition("/")[2] for file in table["path"].to_pylist())  # the same wherever the data lies
    places = zip(files, table["row_group"].to_pylist(), table["row"].to_pylist(), strict=True)
    lines = (f"{row} {group} {file}" for file, group, row in sorted(places))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """A column without nulls as [N], or as [N, K] where it holds lists of K."""
    values = column.combine_chunks()
    if not pa.types.is_list(column.type):
        return values.to_numpy(zero_copy_only=False)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)

"""A worker's rows arrive as batches in the plan's order, each row group read once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from image_data import as_uri, write_table
from insitu.data.columns import BadLabel, ImageColumn, LabelColumn
from insitu.data.dataset import open_dataset
from insitu.data.inputs import ImageInput
from insitu.data.plan import Rows, ShardPlan, plan_shards
from insitu.data.readers import READERS, Reader
from insitu.data.stream import Batch, stream_batches

INPUT, LABEL = ImageInput(ImageColumn("image", "encoded"), (1, 1), 1), LabelColumn("label", "integer")
SEED = 5


@pytest.fixture
def row_groups(tmp_path: Path) -> list[Rows]:
    """90 rows in two files of three row groups; row n has the image bytes "n" and the label n."""
    for file in range(2):
        numbers = range(file * 45, file * 45 + 45)
        columns = {"image": [str(n).encode() for n in numbers], "label": list(numbers)}
        write_table(tmp_path / f"{file}.parquet", columns, row_group_rows=18)
    groups = open_dataset(as_uri(tmp_path)).row_groups
    return [Rows(group.path, group.index, np.arange(group.rows, dtype=np.int32)) for group in groups]


def plan_of(row_groups: list[Rows], *, workers: int = 2, window_rows: int = 13) -> ShardPlan:
    return plan_shards(row_groups, workers=workers, local_batch=4, window_rows=window_rows, seed=SEED)


def stream(reader: Reader, plan: ShardPlan, rank: int = 0, first_row: int = 0) -> list[Batch]:
    windows = plan.epoch(rank, 0, first_row=first_row)
    return list(stream_batches(windows, reader=reader, input=INPUT, label=LABEL, batch_rows=4))


def planned(plan: ShardPlan, rank: int) -> list[int]:
    """The labels of a worker's first epoch, from the plan alone."""

    def label(piece: Rows, offset: int) -> int:
        return 45 * piece.path.endswith("1.parquet") + 18 * piece.row_group + offset

    return [
        [label(piece, offset) for piece in window.pieces for offset in piece.offsets][row]
        for window in plan.epoch(rank, 0)
        for row in window.order
    ]


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("name", READERS)
def test_batches_are_the_plans_order(row_groups: list[Rows], name: str) -> None:
    plan = plan_of(row_groups)
    for rank in range(plan.workers):
        batches = stream(READERS[name](), plan, rank)
        labels = [int(label) for batch in batches for label in batch.labels]
        assert labels == planned(plan, rank)
        assert [payload for batch in batches for payload in batch.inputs] == [str(n).encode() for n in labels]
        assert [len(batch.inputs) for batch in batches] == [4] * 11 + [1]


def test_a_stream_can_begin_at_any_batch(row_groups: list[Rows]) -> None:
    plan = plan_of(row_groups)
    whole = [batch.labels.tolist() for batch in stream(READERS["pyarrow"](), plan)]
    for step in range(len(whole)):
        part = stream(READERS["pyarrow"](), plan, first_row=step * plan.local_batch)
        assert [batch.labels.tolist() for batch in part] == whole[step:]


def test_rows_left_out_of_the_plan_are_skipped(row_groups: list[Rows]) -> None:
    odd = [Rows(rows.path, rows.row_group, rows.offsets[1::2]) for rows in row_groups]
    batches = stream(READERS["pyarrow"](), plan_of(odd, workers=1))
    labels = sorted(int(label) for batch in batches for label in batch.labels)
    assert labels == [45 * file + n for file in range(2) for n in range(45) if n % 18 % 2]


class CountingReader:
    """Gives record batches of three rows, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int]] = []
        self.rows = 0

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.opened.append((path, row_group))
        for batch in READERS["pyarrow"]().batches(path, row_group, columns):
            for start in range(0, batch.num_rows, 3):
                part = batch.slice(start, 3)
                self.rows += part.num_rows
                yield part


def test_a_row_group_is_read_once_however_many_windows_it_spans(row_groups: list[Rows]) -> None:
    reader = CountingReader()
    stream(reader, plan_of(row_groups, workers=1, window_rows=4))
    assert sorted(reader.opened) == sorted((rows.path, rows.row_group) for rows in row_groups)
    assert reader.rows == 90


def test_no_more_than_a_window_and_a_record_batch_are_held(tmp_path: Path) -> None:
    path = write_table(tmp_path / "1.parquet", {"image": [b"x"] * 900, "label": list(range(900))})
    plan = plan_of([Rows(path, 0, np.arange(900, dtype=np.int32))], workers=1, window_rows=12)
    reader = CountingReader()
    batches = stream_batches(plan.epoch(0, 0), reader=reader, input=INPUT, label=LABEL, batch_rows=4)
    for number, _ in enumerate(batches):
        assert reader.rows <= (number // 3 + 1) * 12 + 3
    assert reader.rows == 900


class TableReader:
    """Gives a table that is in memory already."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def batches(self, path: str, row_group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._table.select(columns).to_batches(32)


def test_memory_holds_two_windows_at_the_most() -> None:
    rows, image_bytes, window_rows = 320, 2**15, 64
    table = pa.table({"image": [bytes(image_bytes)] * rows, "label": list(range(rows))})
    plan = plan_of([Rows("table", 0, np.arange(rows, dtype=np.int32))], workers=1, window_rows=window_rows)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        windows = plan.epoch(0, 0)
        batches = stream_batches(windows, reader=TableReader(table), input=INPUT, label=LABEL, batch_rows=5)
        assert sum(len(batch.inputs) for batch in batches) == rows
    finally:
        pa.set_memory_pool(usual)
    assert 1 < pool.max_memory() / (window_rows * image_bytes) < 2.2


def test_a_label_that_went_bad_since_the_scan_stops_the_run(tmp_path: Path) -> None:
    path = write_table(tmp_path / "1.parquet", {"image": [b"x"] * 4, "label": [1, None, 1, 1]})
    plan = plan_of([Rows(path, 0, np.arange(4, dtype=np.int32))], workers=1)
    with pytest.raises(BadLabel, match="label is null"):
        stream(READERS["pyarrow"](), plan)

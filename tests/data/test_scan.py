"""The scan reports every unusable row and deals the others to their splits."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from image_data import as_uri, encode, numbered, picture, write_table
from insitu.data.columns import find_image, find_label, find_tensor
from insitu.data.dataset import open_dataset
from insitu.data.inputs import ImageInput, TensorInput
from insitu.data.plan import Rows
from insitu.data.readers import BATCH_ROWS
from insitu.data.scan import MAX_BAD_RECORDS, Scan, SplitRule, scan
from insitu.errors import UserError

BY_COLUMN = SplitRule("split", 0.5, 1)


@dataclass(frozen=True)
class Scanner:
    spark: SparkSession

    def __call__(
        self, folder: Path, *, split: SplitRule, reader: str = "pyarrow", id_column: str | None = None
    ) -> Scan:
        dataset = open_dataset(as_uri(folder))
        label = find_label(dataset.schema, name=None)
        image = ImageInput(find_image(dataset.schema, name=None, exclude=[label.name]), (8, 8), 3)
        return scan(self.spark, dataset, reader=reader, input=image, label=label, id_column=id_column, split=split)


@pytest.fixture
def run(spark: SparkSession) -> Scanner:
    return Scanner(spark)


def places(pieces: list[Rows]) -> list[tuple[str, int, int]]:
    return [(rows.path.rsplit("/", 1)[-1], rows.row_group, int(row)) for rows in pieces for row in rows.offsets]


def patients(folder: Path) -> Path:
    """Two files of two row groups; rows 2, 4 and 5 of the first are bad, and two splits are unknown."""
    good = encode(picture(1))
    columns = {
        "patient": [f"p{n}" for n in range(6)],
        "image": [good, good, good[: len(good) // 2], good, None, good],
        "label": pa.array([0, 1, 0, 1, 1, None], pa.int8()),
        "split": ["train", "validation", "train", "train", "train", "train"],
    }
    write_table(folder / "1.parquet", columns, row_group_rows=4)
    others = {"label": pa.array([2] * 6, pa.int8()), "image": [good] * 6}
    splits = {"split": ["validation", "test", None, "train", "train", "train"]}
    write_table(folder / "2.parquet", columns | others | splits, row_group_rows=4)
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("reader", ["pyarrow", "petastorm"])
def test_rows_go_to_their_splits_and_the_bad_ones_are_named(run: Scanner, tmp_path: Path, reader: str) -> None:
    found = run(patients(tmp_path), split=BY_COLUMN, reader=reader, id_column="patient")
    first, second = "1.parquet", "2.parquet"
    assert places(found.rows["train"]) == [
        *[(first, 0, 0), (first, 0, 3)],
        *[(second, 0, 3), (second, 1, 0), (second, 1, 1)],
    ]
    assert places(found.rows["validation"]) == [(first, 0, 1), (second, 0, 0)]
    assert found.unused == 2
    bad = [(row.id, row.path.rsplit("/", 1)[1], row.row_group, row.row) for row in found.bad]
    assert bad == [("p2", first, 0, 2), ("p4", first, 1, 0), ("p5", first, 1, 1)]
    reasons = [row.reason for row in found.bad]
    assert reasons[0].startswith("damaged image")
    assert reasons[1:] == ["no bytes", "label is null"]
    assert found.labels["train"].values == {0: 1, 1: 1, 2: 3}
    assert found.labels["validation"].values == {1: 1, 2: 1}
    assert (found.labels["train"].rows, found.labels["validation"].rows) == (5, 2)


def test_without_an_id_column_bad_rows_are_named_by_their_place(run: Scanner, tmp_path: Path) -> None:
    found = run(patients(tmp_path), split=BY_COLUMN)
    assert [row.id for row in found.bad] == [
        "1.parquet row group 0 row 2",
        "1.parquet row group 1 row 0",
        "1.parquet row group 1 row 1",
    ]


def test_partition_folders_can_be_the_splits(run: Scanner, tmp_path: Path) -> None:
    for split, first, rows in (("train", 0, 5), ("validation", 5, 3), ("test", 8, 2)):
        write_table(tmp_path / f"split={split}/1.parquet", numbered(first, rows), row_group_rows=2)
    found = run(tmp_path, split=BY_COLUMN)
    assert sorted(found.labels["train"].values) == [0, 1, 2, 3, 4]
    assert sorted(found.labels["validation"].values) == [5, 6, 7]
    assert found.unused == 2


def test_a_holdout_is_drawn_by_seed_alone_and_is_the_asked_share(run: Scanner, tmp_path: Path) -> None:
    write_table(tmp_path / "here/1.parquet", numbered(0, 200, shape=(1, 1)), row_group_rows=60)
    write_table(tmp_path / "there/1.parquet", numbered(0, 200, shape=(1, 1)), row_group_rows=60)
    held_out = [
        places(run(tmp_path / folder, split=SplitRule(None, 0.25, seed)).rows["validation"])
        for folder, seed in (("here", 1), ("there", 1), ("here", 2))
    ]
    assert held_out[0] == held_out[1] != held_out[2]
    assert all(30 <= len(rows) <= 70 for rows in held_out)
    first, second = ([row for _, group, row in held_out[0] if group == index] for index in range(2))
    assert first != second


def test_row_groups_of_several_record_batches_are_numbered_through(run: Scanner, tmp_path: Path) -> None:
    rows, row_group_rows = 2 * BATCH_ROWS, BATCH_ROWS + 44
    images = [encode(np.zeros((1, 1), np.uint8))] * rows
    images[BATCH_ROWS + 9] = b"text"
    columns = {"image": images, "label": list(range(rows))}
    write_table(tmp_path / "1.parquet", columns, row_group_rows=row_group_rows)
    found = run(tmp_path, split=SplitRule(None, 0.3, 1))
    assert [(row.row_group, row.row) for row in found.bad] == [(0, BATCH_ROWS + 9)]
    dealt = places(found.rows["train"]) + places(found.rows["validation"])
    everywhere = [("1.parquet", row // row_group_rows, row % row_group_rows) for row in range(rows)]
    assert sorted(dealt) == [place for place in everywhere if place[1:] != (0, BATCH_ROWS + 9)]
    assert found.unused == 0


def test_multi_hot_labels_are_tallied_by_class_and_width(run: Scanner, tmp_path: Path) -> None:
    image = encode(np.zeros((2, 2), np.uint8))
    columns = {"image": [image] * 4, "labels": [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1]], "split": ["train"] * 4}
    write_table(tmp_path / "1.parquet", columns)
    tally = run(tmp_path, split=BY_COLUMN).labels["train"]
    assert (tally.rows, tally.values, tally.widths) == (4, Counter({1: 3, 0: 1}), Counter({3: 3, 2: 1}))


def test_all_bad_rows_are_counted_and_the_first_of_each_row_group_named(run: Scanner, tmp_path: Path) -> None:
    rows = MAX_BAD_RECORDS + 5
    write_table(tmp_path / "1.parquet", {"image": [b""] * 2 * rows, "label": [0] * 2 * rows}, row_group_rows=rows)
    found = run(tmp_path, split=SplitRule(None, 0.5, 1))
    assert found.bad_rows == 2 * rows
    named = [(row.row_group, row.row) for row in found.bad]
    assert named == [(group, row) for group in range(2) for row in range(MAX_BAD_RECORDS)]


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("reader", ["pyarrow", "petastorm"])
def test_a_damaged_page_is_the_users_to_mend(run: Scanner, tmp_path: Path, reader: str) -> None:
    file = tmp_path / "1.parquet"
    images = [encode(picture(n, shape=(40, 40, 3))) for n in range(20)]
    uri = write_table(file, {"image": images, "label": list(range(20))}, row_group_rows=10)
    page = pq.read_metadata(file).row_group(1).column(0).dictionary_page_offset
    content = file.read_bytes()
    file.write_bytes(content[:page] + b"\xff" * 4096 + content[page + 4096 :])
    message = rf"^{uri}: row group 1 cannot be read \(.+\); write it again or take it away$"
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, split=SplitRule(None, 0.5, 1), reader=reader)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("reader", ["pyarrow", "petastorm"])
def test_rows_that_are_no_tensors_are_named(spark: SparkSession, tmp_path: Path, reader: str) -> None:
    good = [float(n) for n in range(6)]
    columns = {
        "window": [good, good[:5], None, [*good[:3], None, 1, 2], [*good[:5], float("nan")], good, good],
        "label": pa.array([0, 1, 0, 1, 0, 1, None], pa.int8()),
        "split": ["train", *["validation"] * 5, "train"],
    }
    write_table(tmp_path / "1.parquet", columns, row_group_rows=4)
    dataset = open_dataset(as_uri(tmp_path))
    label = find_label(dataset.schema, name=None)
    window = TensorInput(find_tensor(dataset.schema, shape=(3, 2), name=None, exclude=[label.name]), (3, 2))
    found = scan(spark, dataset, reader=reader, input=window, label=label, id_column=None, split=BY_COLUMN)
    assert [(row.row_group, row.row, row.reason) for row in found.bad] == [
        (0, 1, "list of 5, expected 6"),
        (0, 2, "tensor is null"),
        (0, 3, "number 3 is null"),
        (1, 0, "number 5 is nan"),
        (1, 2, "label is null"),
    ]
    assert places(found.rows["train"]) == [("1.parquet", 0, 0)]
    assert places(found.rows["validation"]) == [("1.parquet", 1, 1)]


def test_petastorms_reader_refuses_the_lists_that_it_leaves_out(spark: SparkSession, tmp_path: Path) -> None:
    windows = pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32(), 2))
    write_table(tmp_path / "1.parquet", {"window": windows, "label": [0, 1]})
    dataset = open_dataset(as_uri(tmp_path))
    window = TensorInput(find_tensor(dataset.schema, shape=(1, 2), name="window"), (1, 2))
    label = find_label(dataset.schema, name=None)
    with pytest.raises(UserError, match=r"data\.reader: petastorm cannot read column window of type fixed_size_list"):
        scan(spark, dataset, reader="petastorm", input=window, label=label, id_column=None, split=BY_COLUMN)

"""The JVM's batches: their order, what is read ahead, and errors that name the row."""

import time
from contextlib import closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_data import numbered, write_table
from jvm_data import EVERY_CHANGE, Jvm

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

GROUPS = [(file, group) for file in range(2) for group in range(3)]


@pytest.fixture
def shard(jvm: Jvm, tmp_path: Path) -> Any:
    """44 rows: every second one of two files of three row groups of 15; row n has level n and label n."""
    paths = [write_table(tmp_path / f"{file}.parquet", numbered(45 * file, 45), row_group_rows=15) for file in range(2)]
    return jvm.shard(*((paths[file], group, range(1 - group % 2, 15, 2)) for file, group in GROUPS))


ROWS = [45 * file + 15 * group + row for file, group in GROUPS for row in range(1 - group % 2, 15, 2)]


def labels(jvm: Jvm, batches: Any, count: int) -> list[list[int]]:
    """The labels of the next batches, whose pixels are checked to be the labels."""
    source = jvm.source()
    found = []
    with closing(batches):
        for _ in range(count):
            images, labels = jvm.rows(batches.next(), source)
            np.testing.assert_array_equal(images, np.broadcast_to(labels[:, :, None, None], images.shape))
            found.append(labels[:, 0].astype(int).tolist())
    return found


class TestOrder:
    def test_in_an_epoch_is_each_row_once(self, jvm: Jvm, shard: Any) -> None:
        assert len(ROWS) == 44
        for local_batch, steps in ((4, 11), (9, 4), (1, 44)):
            found = labels(jvm, jvm.training(shard, jvm.source(), localBatch=local_batch, steps=steps), 2 * steps)
            for epoch in (found[:steps], found[steps:]):
                rows = list(chain(*epoch))
                assert len(set(rows)) == len(rows) == steps * local_batch and set(rows) <= set(ROWS)
            assert found[:steps] != found[steps:]

    @settings(max_examples=12, suppress_health_check=["function_scoped_fixture"])  # type: ignore[list-item]
    @given(st.integers(0, 2**63 - 1), st.integers(1, 25), st.integers(1, 60), st.integers(1, 3))
    def test_goes_on_where_a_run_stopped(
        self, jvm: Jvm, shard: Any, seed: int, first: int, window: int, threads: int
    ) -> None:
        arguments = {"seed": seed, "windowRows": window, "threads": threads}
        whole = labels(jvm, jvm.training(shard, jvm.source(), **arguments), 30)
        assert labels(jvm, jvm.training(shard, jvm.source(), firstStep=first, **arguments), 30 - first) == whole[first:]

    def test_and_changes_are_those_of_the_step_wherever_a_run_starts(self, jvm: Jvm, shard: Any) -> None:
        source, augment = jvm.source(height=20, width=20), jvm.augment(**EVERY_CHANGE)

        def images(first: int, count: int) -> list[bytes]:
            with closing(jvm.training(shard, source, augment=augment, firstStep=first)) as batches:
                return [jvm.rows(batches.next(), source)[0].tobytes() for _ in range(count)]

        whole = images(0, 15)
        assert images(7, 8) == whole[7:] and images(0, 15) == whole

    def test_depends_on_seed_and_rank(self, jvm: Jvm, shard: Any) -> None:
        found = [
            labels(jvm, jvm.training(shard, jvm.source(), **change), 11)
            for change in ({}, {"seed": 6}, {"rank": 1}, {})
        ]
        assert found[0] == found[3] and found[0] != found[1] and found[0] != found[2] and found[1] != found[2]

    def test_shuffles_windows_only(self, jvm: Jvm, shard: Any) -> None:
        [rows] = labels(jvm, jvm.training(shard, jvm.source(), localBatch=44, steps=1, windowRows=44), 1)
        assert sorted(rows) == ROWS and rows != ROWS
        [singles] = labels(jvm, jvm.training(shard, jvm.source(), localBatch=44, steps=1, windowRows=1), 1)
        groups = [n // 15 for n in singles]
        assert sum(one != other for one, other in pairwise(groups)) == 5
        assert groups != sorted(groups)
        for group in set(groups):
            own = [n for n in singles if n // 15 == group]
            assert own == sorted(own)
        for seed in range(5):
            [rows] = labels(jvm, jvm.training(shard, jvm.source(), localBatch=44, steps=1, windowRows=10, seed=seed), 1)
            assert all(len({n // 15 for n in rows[at : at + 10]}) <= 3 for at in range(0, 44, 10))

    def test_of_validation_is_the_stored_one_with_a_smaller_last_batch(self, jvm: Jvm, shard: Any) -> None:
        batches = jvm.validation(shard, jvm.source())
        found = labels(jvm, batches, 9)
        assert list(chain(*found)) == ROWS and [len(batch) for batch in found] == [5] * 8 + [4]
        assert not batches.hasNext()


def test_no_more_is_read_ahead_than_is_said(jvm: Jvm, tmp_path: Path) -> None:
    paths = [write_table(tmp_path / f"{n}.parquet", numbered(n, 1)) for n in range(8)]
    shard = jvm.shard(*((path, 0, [0]) for path in paths))
    with closing(jvm.validation(shard, jvm.source(), local_batch=1, window=1, threads=2)) as batches:
        assert jvm.rows(batches.next(), jvm.source())[1].item() == 0
        time.sleep(1)
        for path in paths[5:]:
            Path(path.removeprefix("file://")).unlink()
        assert [jvm.rows(batches.next(), jvm.source())[1].item() for _ in range(3)] == [1, 2, 3]
        with pytest.raises(Exception, match=r"[567]\.parquet"):
            for _ in range(4):
                batches.next()


class TestErrors:
    def fails(self, jvm: Jvm, columns: dict[str, Any], tmp_path: Path, match: str, **source: Any) -> None:
        path = write_table(tmp_path / "1.parquet", columns)
        shard = jvm.shard((path, 0, range(5)))
        for batches in (
            jvm.validation(shard, jvm.source(**source), local_batch=5),
            jvm.training(shard, jvm.source(**source), localBatch=5, steps=1),
        ):
            with closing(batches):
                for _ in range(2):
                    with pytest.raises(Exception, match=match):
                        batches.next()

    def test_name_the_row(self, jvm: Jvm, tmp_path: Path) -> None:
        columns = numbered(0, 5)
        columns["image"][3] = b"a note"
        self.fails(jvm, columns, tmp_path, r"1\.parquet, row group 0, row 3: not an image")

    @pytest.mark.parametrize("column", ["image", "label"])
    def test_null(self, jvm: Jvm, tmp_path: Path, column: str) -> None:
        columns = numbered(0, 5)
        columns[column][2] = None
        self.fails(jvm, columns, tmp_path, f"row 2: {column} is null")

    def test_null_in_a_list(self, jvm: Jvm, tmp_path: Path) -> None:
        columns = numbered(0, 5) | {"label": [[1, 0]] * 4 + [[1, None]]}
        self.fails(jvm, columns, tmp_path, "row 4: label.* is null", labelForm="multi_hot", labelWidth=2)

    def test_another_number_of_labels(self, jvm: Jvm, tmp_path: Path) -> None:
        columns = numbered(0, 5) | {"label": [[1, 0]] * 4 + [[1]]}
        self.fails(
            jvm, columns, tmp_path, "row 4: label has 1 numbers, expected 2", labelForm="multi_hot", labelWidth=2
        )

    def test_labels_that_are_not_0_and_1(self, jvm: Jvm, tmp_path: Path) -> None:
        columns = numbered(0, 5) | {"label": [[1, 0]] * 4 + [[1, 2]]}
        self.fails(jvm, columns, tmp_path, "row 4: .* is no list of 0 and 1", labelForm="multi_hot", labelWidth=2)

    def test_a_column_that_is_not_there(self, jvm: Jvm, tmp_path: Path) -> None:
        self.fails(jvm, numbered(0, 5), tmp_path, "1.parquet has no column scan", input="scan")

    def test_data_that_has_changed(self, jvm: Jvm, tmp_path: Path) -> None:
        path = write_table(tmp_path / "1.parquet", numbered(0, 5))
        for piece, match in (((path, 3, [0]), "has 1 row groups, number 3"), ((path, 0, [5]), "has 5 rows")):
            batches = jvm.validation(jvm.shard(piece), jvm.source())
            with closing(batches), pytest.raises(Exception, match=match):
                batches.next()

    def test_more_steps_than_rows(self, jvm: Jvm, shard: Any) -> None:
        with pytest.raises(Exception, match="12 steps of 4 rows do not fit in the 44 rows"):
            jvm.training(shard, jvm.source(), steps=12)

    def test_after_the_end_or_when_closed(self, jvm: Jvm, shard: Any) -> None:
        batches = jvm.validation(shard, jvm.source())
        labels(jvm, batches, 9)
        with pytest.raises(Exception, match="all 9 batches were given"):
            batches.next()
        batches = jvm.training(shard, jvm.source())
        batches.close()
        for _ in range(3):
            with pytest.raises(Exception, match="closed"):
                batches.next()

"""Training batches are pure functions of the seed and the step."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from image_data import as_npy, as_uri, numbered, write_table
from insitu.data.augment import Augmentation
from insitu.data.columns import ImageColumn, LabelColumn, TensorColumn
from insitu.data.dataset import open_dataset
from insitu.data.inputs import ImageInput, TensorInput
from insitu.data.pipeline import Source
from insitu.data.plan import Rows, ShardPlan, plan_shards
from insitu.data.tensors import BadTensor

ROWS, BATCH = 38, 4
INPUT = ImageInput(ImageColumn("image", "encoded"), (6, 7), 3)
SOURCE = Source("pyarrow", INPUT, LabelColumn("label", "integer"), (), "int32")
PLAIN = Augmentation()
CHANGED = Augmentation(flip=True, rotate_degrees=20, crop=0.3, brightness=0.2, contrast=0.3, color=0.1)


@pytest.fixture(scope="module")
def row_groups(tmp_path_factory: pytest.TempPathFactory) -> list[Rows]:
    """Row n is an image full of the value n, labelled n."""
    folder = tmp_path_factory.mktemp("numbered")
    write_table(folder / "1.parquet", numbered(0, 20), row_group_rows=9)
    write_table(folder / "2.parquet", numbered(20, ROWS - 20), row_group_rows=9)
    groups = open_dataset(as_uri(folder)).row_groups
    return [Rows(group.path, group.index, np.arange(group.rows, dtype=np.int32)) for group in groups]


def plan_of(row_groups: list[Rows], *, seed: int = 1) -> ShardPlan:
    return plan_shards(row_groups, workers=2, local_batch=BATCH, window_rows=10, seed=seed)


Batches = list[tuple[np.ndarray, np.ndarray]]


def batches(
    plan: ShardPlan, steps: int, *, augment: Augmentation = PLAIN, rank: int = 0, first_step: int = 0
) -> Batches:
    dataset = SOURCE.training_dataset(plan, augment, rank=rank, first_step=first_step, threads=2)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    return list(islice(dataset.as_numpy_iterator(), steps))


def labels(batches: Batches) -> list[int]:
    return [int(label) for _, part in batches for label in part]


def assert_same(left: Batches, right: Batches) -> None:
    for (images, numbers), (other_images, other_numbers) in zip(left, right, strict=True):
        np.testing.assert_array_equal(numbers, other_numbers)
        np.testing.assert_array_equal(images, other_images)


def test_images_come_resized_as_uint8_each_with_its_own_label(row_groups: list[Rows]) -> None:
    for images, numbers in batches(plan_of(row_groups), 6):
        assert images.shape == (BATCH, 6, 7, 3) and images.dtype == np.uint8
        assert numbers.shape == (BATCH,) and numbers.dtype == np.int32
        np.testing.assert_array_equal(images, np.broadcast_to(numbers[:, None, None, None], images.shape))


def test_an_epoch_covers_the_shards_and_the_workers_share_nothing(row_groups: list[Rows]) -> None:
    plan = plan_of(row_groups)
    for epoch in range(2):
        seen = [labels(batches(plan, plan.steps, rank=rank, first_step=epoch * plan.steps)) for rank in range(2)]
        together = seen[0] + seen[1]
        assert len(set(together)) == len(together) == ROWS - plan.dropped


def test_the_seed_repeats_a_run_and_epochs_and_seeds_differ(row_groups: list[Rows]) -> None:
    plan = plan_of(row_groups)
    run = batches(plan, 2 * plan.steps, augment=CHANGED)
    assert_same(run, batches(plan_of(row_groups), 2 * plan.steps, augment=CHANGED))
    first, second = labels(run[: plan.steps]), labels(run[plan.steps :])
    assert first != second
    assert labels(batches(plan_of(row_groups, seed=2), plan.steps)) != first


def test_a_run_begun_at_any_step_goes_on_as_the_whole_one(row_groups: list[Rows]) -> None:
    plan = plan_of(row_groups)
    whole = batches(plan, 2 * plan.steps + 1, augment=CHANGED, rank=1)
    for first_step in range(1, len(whole)):
        rest = batches(plan, len(whole) - first_step, augment=CHANGED, rank=1, first_step=first_step)
        assert_same(rest, whole[first_step:])


def test_no_image_is_changed_the_same_way_twice(row_groups: list[Rows]) -> None:
    plan = plan_of(row_groups)
    seeds = [
        tuple(map(int, seed))
        for rank in range(plan.workers)
        for _, seed in islice(SOURCE.training_batches(plan, rank, 0), 3 * plan.steps)
    ]
    assert len(set(seeds)) == len(seeds)


def test_validation_batches_are_every_row_of_the_shard_as_stored(row_groups: list[Rows]) -> None:
    plan = plan_of(row_groups)
    seen = [
        [int(label) for batch in SOURCE.validation_batches(plan, rank) for label in batch.labels] for rank in range(2)
    ]
    assert sorted(seen[0] + seen[1]) == list(range(ROWS))
    assert [len(batch.inputs) for batch in SOURCE.validation_batches(plan, 0)] == [4, 4, 4, 4, 3]
    for batch in SOURCE.validation_batches(plan, 0):
        np.testing.assert_array_equal(INPUT.decode(batch.inputs)[:, 0, 0, 0], batch.labels)


def test_bytes_that_end_in_zeros_reach_the_decoder_whole(tmp_path: Path) -> None:
    columns = {"image": [as_npy(np.zeros((6, 7), np.uint8))] * 8, "label": [[0, 1, 1]] * 8}
    path = write_table(tmp_path / "1.parquet", columns)
    zeros = ImageInput(ImageColumn("image", "encoded"), (6, 7), 1)
    source = Source("pyarrow", zeros, LabelColumn("label", "multi_hot"), (3,), "float32")
    plan = plan_shards([Rows(path, 0, np.arange(8, dtype=np.int32))], workers=1, local_batch=8, window_rows=8, seed=1)
    images, labels = next(source.training_dataset(plan, PLAIN, rank=0, first_step=0, threads=1).as_numpy_iterator())
    np.testing.assert_array_equal(images, np.zeros((8, 6, 7, 1)))
    np.testing.assert_array_equal(labels, [[0, 1, 1]] * 8)


@pytest.mark.parametrize("reader", ["pyarrow", "petastorm"])
@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
def test_tensors_come_as_float32_each_with_its_own_label(tmp_path: Path, reader: str) -> None:
    """Also from any step on; row n is full of n + 0.5."""
    columns = {"tensor": [[n + 0.5] * 6 for n in range(ROWS)], "label": list(range(ROWS))}
    path = write_table(tmp_path / "1.parquet", columns, row_group_rows=9)
    rows = [Rows(path, group, np.arange(min(9, ROWS - 9 * group), dtype=np.int32)) for group in range(5)]
    plan = plan_of(rows)
    source = Source(reader, TensorInput(TensorColumn("tensor", "list"), (3, 2)), SOURCE.label, (), "int32")

    def batches(first_step: int, steps: int) -> Batches:
        dataset = source.training_dataset(plan, PLAIN, rank=0, first_step=first_step, threads=2)
        return list(islice(dataset.as_numpy_iterator(), steps))

    whole = batches(0, 2 * plan.steps)
    for tensors, numbers in whole:
        assert tensors.shape == (BATCH, 3, 2, 1) and tensors.dtype == np.float32
        np.testing.assert_array_equal(tensors, np.broadcast_to(numbers[:, None, None, None] + 0.5, tensors.shape))
    assert_same(batches(5, 2 * plan.steps - 5), whole[5:])
    validation = list(source.validation_dataset(plan, rank=0, threads=2).as_numpy_iterator())
    assert [tensors.shape for tensors, _ in validation] == [(4, 3, 2, 1)] * 4 + [(3, 3, 2, 1)]


def test_a_tensor_that_went_bad_since_the_scan_stops_the_run(tmp_path: Path) -> None:
    path = write_table(tmp_path / "1.parquet", {"tensor": [[1.0, 2.0], [1.0, None]], "label": [0, 1]})
    plan = plan_shards([Rows(path, 0, np.arange(2, dtype=np.int32))], workers=1, local_batch=2, window_rows=2, seed=1)
    source = Source("pyarrow", TensorInput(TensorColumn("tensor", "list"), (1, 2)), SOURCE.label, (), "int32")
    with pytest.raises(BadTensor, match="number 1 is null"):
        next(source.validation_batches(plan, 0))

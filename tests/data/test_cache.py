"""Cached images are those that decoding gives, and the first ones are decoded once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_data import encode, numbered, picture, write_table
from insitu.data import inputs
from insitu.data.augment import Augmentation
from insitu.data.cache import CachedImages, cached_rows, with_cache
from insitu.data.columns import ImageColumn, LabelColumn
from insitu.data.decode import BadImage
from insitu.data.inputs import ImageInput
from insitu.data.pipeline import Source
from insitu.data.plan import Rows, plan_shards
from insitu.errors import UserError

INPUT = ImageInput(ImageColumn("image", "encoded"), (4, 3), 3)
PICTURES = [encode(picture(number)) for number in range(6)]


def source_of(images: ImageInput) -> Source:
    return Source("pyarrow", images, LabelColumn("label", "integer"), (), "int32")


@given(batches=st.lists(st.lists(st.integers(0, 5), min_size=1), min_size=1), rows=st.integers(0, 7))
def test_any_batches_are_as_without_it(batches: list[list[int]], rows: int) -> None:
    cached = CachedImages(**vars(INPUT), rows=rows)
    for numbers in batches:
        stored = np.array([PICTURES[number] for number in numbers], object)
        np.testing.assert_array_equal(cached.decode(stored), INPUT.decode(stored))
    assert len(cached.kept) == min(rows, len({number for numbers in batches for number in numbers}))


def test_an_epoch_decodes_only_what_found_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a worker's eight training images the cache holds two."""
    decoded: list[bytes] = []

    def decode(payload: bytes, *, size: tuple[int, int], channels: int) -> np.ndarray:
        decoded.append(payload)
        return np.zeros((*size, channels), np.uint8)

    monkeypatch.setattr(inputs, "decode", decode)
    path = write_table(tmp_path / "1.parquet", numbered(0, 8))
    plan = plan_shards([Rows(path, 0, np.arange(8, dtype=np.int32))], workers=1, local_batch=4, window_rows=8, seed=1)
    square = ImageInput(INPUT.column, (590, 590), 3)
    source = with_cache(source_of(square), mib=2, rows=8, workers=1)
    batches = source.training_dataset(plan, Augmentation(), rank=0, first_step=0, threads=1).as_numpy_iterator()
    for _ in range(3 * plan.steps):
        next(batches)
    times = sorted(map(decoded.count, set(decoded)))
    assert len(times) == 8 and times[:2] == [1, 1]
    assert min(times[2:]) >= 3, "prefetched batches may be more"


def test_a_bad_image_is_refused_each_time() -> None:
    cached = CachedImages(**vars(INPUT), rows=3)
    for _ in range(2):
        with pytest.raises(BadImage, match="not an image"):
            cached.decode(np.array([b"no"], object))
    assert not cached.kept


def test_its_size_is_in_mib() -> None:
    assert cached_rows((224, 224, 3), 1024, rows=10**6) == 7114
    assert cached_rows((224, 224, 3), 1024, rows=90) == 90


def test_more_than_the_host_has_is_refused() -> None:
    image, rows = 512 * 512 * 3, 10**7
    with pytest.raises(
        UserError, match=r"data\.cache_mib: 8 workers of a host would keep \d+ MiB of decoded images, and"
    ):
        with_cache(source_of(ImageInput(INPUT.column, (512, 512), 3)), rows * image // 2**20, rows=rows, workers=8)
    few = with_cache(source_of(ImageInput(INPUT.column, (512, 512), 3)), rows * image // 2**20, rows=9, workers=8)
    assert isinstance(few.input, CachedImages) and few.input.rows == 9, "what is not there needs no memory"

"""The benchmarks' data: synthetic chest X-rays as JPEG in Parquet, made once under build/bench/."""

import io
import shutil
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from insitu.data.xray import xray

BUILD = Path(__file__).parent.parent / "build/bench"
VALIDATION_ROWS = 32
_SIZE = 256
_QUALITY = 94  # 26 kB an image
_DRAWN = 256
_ROW_GROUP = 128
_SEED = 1


def xrays(rows: int) -> Path:
    """A dataset of 256x256 grayscale JPEGs: `rows` to train on, repeating 256 pictures, and 32 to validate.

    Columns `image` binary, `labels` list<int32> (14 of 0/1), `split` string.
    """
    directory = BUILD / f"xrays-{rows}"
    if not directory.exists():
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        splits = ["validation"] * VALIDATION_ROWS + ["train"] * rows
        images, labels = zip(*(_row(number % _DRAWN) for number in range(len(splits))), strict=True)
        table = pa.table({"image": images, "labels": labels, "split": splits})
        pq.write_table(table, partial / "part-0.parquet", row_group_size=_ROW_GROUP)
        partial.rename(directory)
    return directory


@cache
def _row(number: int) -> tuple[bytes, list[int]]:
    pixels, labels = xray(number, size=_SIZE, seed=_SEED)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue(), labels.tolist()

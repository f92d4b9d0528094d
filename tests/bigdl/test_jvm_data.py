"""The JVM's data path gives the rows, pixels and labels that Python's gives, in an order of its own."""

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from image_conventions import CONVENTIONS, PICTURES
from image_data import as_npy, as_npz, as_uri, encode, numbered, picture, save, write_table
from insitu.data.decode import decode
from insitu.data.readers import READERS
from insitu.data.tensors import read_tensors
from tensor_data import ARRAYS, DTYPES, FLOATS, INTEGERS, LISTED, SHAPE, column, extremes

RGB = np.asarray(Image.fromarray(picture(1, shape=(9, 7, 3))).resize((47, 61)))
GRAY = np.ascontiguousarray(RGB[:, :, 0])
ALPHA = np.dstack([RGB, GRAY])
WIDE = picture(2, shape=(61, 47), dtype=np.uint16)
NOTHING = {"flip": False, "rotateDegrees": 0, "crop": 0, "brightness": 0, "contrast": 0, "color": 0}
EVERYTHING = {"flip": True, "rotateDegrees": 20, "crop": 0.3, "brightness": 0.2, "contrast": 0.3, "color": 0.1}


class Jvm:
    """The project's classes in the driver's JVM, and how values come and go."""

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext
        self.spark = spark
        self.java = context._jvm
        self.classes = self.java.com.intel.analytics.bigdl.insitu
        self.hadoop = context._jsc.hadoopConfiguration()
        self._new_array = context._gateway.new_array

    def array(self, kind: Any, values: Sequence[Any]) -> Any:
        made = self._new_array(kind, len(values))
        for index, value in enumerate(values):
            made[index] = value
        return made

    def doubles(self, values: Sequence[float]) -> Any:
        return self.array(self.java.double, [float(value) for value in values])

    def floats(self, values: Any, *shape: int) -> np.ndarray:
        """A Java float[] as an array."""
        buffer = self.java.java.nio.ByteBuffer.allocate(4 * len(values))
        buffer.order(self.java.java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values)
        return np.frombuffer(buffer.array(), "<f4").reshape(shape)

    def decode(self, payload: bytes | None, height: int, width: int, channels: int) -> np.ndarray:
        pixels = self.classes.Images.decode(payload, height, width, channels)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)

    def augment(self, **changes: Any) -> Any:
        values = NOTHING | changes
        return self.classes.Augment(values["flip"], *(float(value) for value in list(values.values())[1:]))

    def shard(self, *pieces: tuple[str, int, Sequence[int]]) -> Any:
        made = [
            self.classes.Piece(path, group, self.array(self.java.int, [int(row) for row in rows]))
            for path, group, rows in pieces
        ]
        return self.classes.Shard(self.array(self.classes.Piece, made))

    def source(self, **values: Any) -> Any:
        usual = {"input": "image", "inputForm": "encoded", "label": "label", "labelForm": "integer", "labelWidth": 1}
        return self.classes.Source(*(usual | {"height": 8, "width": 8, "channels": 1} | values).values())

    def training(self, shard: Any, source: Any, **changes: Any) -> Any:
        usual = {"augment": self.augment(), "seed": 5, "localBatch": 4, "windowRows": 13, "rank": 0, "steps": 11}
        values = usual | {"firstStep": 0, "threads": 2} | changes
        return self.classes.TrainingBatches(shard, source, *values.values(), self.hadoop)

    def validation(self, shard: Any, source: Any, *, local_batch: int = 5, window: int = 13, threads: int = 2) -> Any:
        return self.classes.ValidationBatches(shard, source, local_batch, window, threads, self.hadoop)

    def rows(self, batch: Any, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """A batch's images [B, C, h, w] and labels [B, K]."""
        shape = batch.rows(), source.channels(), source.height(), source.width()
        return self.floats(batch.inputs(), *shape), self.floats(batch.labels(), batch.rows(), source.labelWidth())

    def in_order(self, shard: Any, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """All of a shard's rows as they are stored."""
        with closing(self.validation(shard, source)) as batches:
            parts = []
            while batches.hasNext():
                parts.append(self.rows(batches.next(), source))
        images, labels = zip(*parts, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def threads(self) -> list[str]:
        """Names of the data path's threads that are alive."""
        running = self.java.java.lang.Thread.getAllStackTraces().keySet()
        return [thread.getName() for thread in running if thread.getName().startswith("insitu-")]


@pytest.fixture(scope="module")
def jvm(spark: SparkSession) -> Jvm:
    return Jvm(spark)


@pytest.fixture(autouse=True)
def no_thread_is_left(jvm: Jvm) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while jvm.threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert jvm.threads() == []


def without_segment(jpeg: bytes, marker: bytes) -> bytes:
    """A JPEG file without its first segment of a kind."""
    start = jpeg.index(marker)
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return save(Image.fromarray(RGB), "JPEG", exif=exif)


def unmarked_jpeg() -> bytes:
    """A JPEG file of components 0, 1 and 2 that says nothing of its colours: Java's reader would guess RGB."""
    jpeg = bytearray(without_segment(encode(RGB, "JPEG", subsampling=0), b"\xff\xe0"))
    frame, scan = jpeg.index(b"\xff\xc0"), jpeg.index(b"\xff\xda")
    for number in range(3):
        jpeg[frame + 10 + 3 * number] = jpeg[scan + 5 + 2 * number] = number
    return bytes(jpeg)


def red_green_blue_jpeg() -> bytes:
    """A JPEG file whose components are called R, G and B and that says nothing else of its colours."""
    return without_segment(save(Image.fromarray(RGB), "JPEG", keep_rgb=True, subsampling=0), b"\xff\xee")


ALPHA_TAG = struct.pack("<HHI", 338, 3, 1)  # of a TIFF file; then 1 where samples are multiplied by alpha, 2 where not
PALETTE = Image.fromarray(RGB).quantize(16)
FILES = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg 4:4:4": encode(RGB, "JPEG", subsampling=0),
    "jpeg 4:2:2": encode(RGB, "JPEG", subsampling=1, quality=95),
    "jpeg progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg gray": encode(GRAY, "JPEG"),
    "jpeg cmyk": save(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "jpeg cmyk without Adobe's marker": without_segment(
        save(Image.fromarray(RGB).convert("CMYK"), "JPEG"), b"\xff\xee"
    ),
    "jpeg 4:4:4 without a marker": unmarked_jpeg(),
    "jpeg of R, G and B": red_green_blue_jpeg(),
    "jpeg turned by EXIF": rotated_by_exif(),
    "jpeg and more": encode(RGB, "JPEG") + b"more",
    "png": encode(RGB),
    "png gray": encode(GRAY),
    "png alpha": encode(ALPHA),
    "png gray alpha": encode(np.dstack([GRAY, GRAY[::-1]])),
    "png palette": save(PALETTE, "PNG"),
    "png palette with transparency": save(PALETTE, "PNG", transparency=3),
    "png bilevel": save(Image.fromarray(GRAY > 127), "PNG"),
    "png 16-bit": encode(WIDE),
    "tiff": encode(RGB, "TIFF"),
    "tiff lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "tiff packbits": encode(RGB, "TIFF", compression="packbits"),
    "tiff jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "tiff gray": encode(GRAY, "TIFF"),
    "tiff alpha": encode(ALPHA, "TIFF"),
    "tiff bilevel": save(Image.fromarray(GRAY > 127), "TIFF", compression="group4"),
    "tiff 16-bit": encode(WIDE, "TIFF"),
    "tiff 16-bit big-endian": save(Image.frombytes("I;16B", (47, 61), WIDE.astype(">u2").tobytes()), "TIFF"),
    "tiff 32-bit": encode(WIDE.astype(np.int32), "TIFF"),
    "tiff cmyk": save(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "bmp": encode(RGB, "BMP"),
    "bmp alpha": encode(ALPHA, "BMP"),
    "bmp palette": save(PALETTE, "BMP"),
    "gif": encode(RGB, "GIF"),
    "gif animated": save(PALETTE, "GIF", save_all=True, append_images=[Image.fromarray(RGB[::-1]).quantize(16)]),
    "npy": as_npy(RGB),
    "npy gray": as_npy(GRAY),
    "npy gray of one channel": as_npy(GRAY[:, :, None]),
    "npy alpha": as_npy(ALPHA),
    "npy 16-bit": as_npy(WIDE),
    "npy in Fortran's order": as_npy(np.asfortranarray(RGB)),
    "npz": as_npz(image=RGB, other=GRAY),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_pillows(jvm: Jvm, name: str) -> None:
    for size in ((61, 47), (24, 31), (80, 20), (10, 90)):
        for channels in (1, 3):
            expected = decode(FILES[name], size=size, channels=channels)
            np.testing.assert_array_equal(jvm.decode(FILES[name], *size, channels), expected, f"{size} {channels}")


def test_a_big_endian_array_is_read(jvm: Jvm) -> None:
    pixels = jvm.decode(as_npy(WIDE.astype(">u2")), 61, 47, 1)
    np.testing.assert_array_equal(pixels[:, :, 0], WIDE >> 8)


@pytest.mark.parametrize(
    "payload",
    [
        save(PALETTE, "TIFF"),
        save(Image.fromarray(RGB).convert("YCbCr"), "TIFF"),
        encode(np.dstack([GRAY // 2, np.full_like(GRAY, 128)]), "TIFF").replace(ALPHA_TAG + b"\2", ALPHA_TAG + b"\1"),
    ],
    ids=["tiff palette", "tiff YCbCr", "tiff gray multiplied by its alpha"],
)
def test_pixels_are_nearly_pillows(jvm: Jvm, payload: bytes) -> None:
    for channels in (1, 3):
        pixels = jvm.decode(payload, 61, 47, channels).astype(int)
        assert np.abs(pixels - decode(payload, size=None, channels=channels)).max() <= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(stored=st.tuples(*[st.integers(1, 90)] * 2), size=st.tuples(*[st.integers(1, 90)] * 2), gray=st.booleans())
def test_any_resize_is_pillows(jvm: Jvm, stored: tuple[int, int], size: tuple[int, int], gray: bool) -> None:
    payload = as_npy(picture(3, shape=stored if gray else (*stored, 3)))
    channels = 1 if gray else 3
    np.testing.assert_array_equal(jvm.decode(payload, *size, channels), decode(payload, size=size, channels=channels))


PLAIN_JPEG = encode(RGB, "JPEG")
REFUSED = [
    (None, "no bytes"),
    (b"", "no bytes"),
    (b"a note", "not an image: 6 bytes"),
    (encode(RGB)[:-100], "damaged image"),
    (PLAIN_JPEG[:-100], "damaged image: truncated"),
    (PLAIN_JPEG[:-2], "damaged image: truncated"),
    (encode(RGB, "GIF")[:-100], "damaged image"),
    (encode(RGB, "BMP")[:-100], "damaged image"),
    (encode(RGB, "TIFF", compression="tiff_lzw")[:-100], "damaged image"),
    (encode(GRAY.astype(np.float32), "TIFF"), "floating-point samples"),
    (encode(WIDE.astype(np.int32) - 40000, "TIFF"), "samples from -.* expected 16-bit"),
    (encode(RGB, "WEBP"), "WebP, which Java cannot decode: store it as JPEG or PNG"),
    (save(Image.new("LAB", (4, 4)), "TIFF"), "TIFF in CIE L"),
    (as_npy(RGB)[:-1], "damaged NumPy array"),
    (as_npy(np.array([{}], object)), "damaged NumPy array"),
    (as_npy(RGB.astype(np.float32)), "array of f4, expected uint8 or uint16"),
    (as_npy(RGB[:, :, :2]), r"array of shape \(61, 47, 2\)"),
    (as_npy(RGB[:0]), "without an array"),
    (as_npz(image=RGB)[:-200], "damaged NumPy array"),
]


@pytest.mark.parametrize(("payload", "reason"), REFUSED)
def test_what_is_no_image_says_why(jvm: Jvm, payload: bytes | None, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        jvm.decode(payload, 8, 8, 3)


def test_a_gif_that_does_not_fill_its_screen_is_refused(jvm: Jvm) -> None:
    gif = bytearray(encode(RGB, "GIF"))
    gif[6] += 1
    with pytest.raises(Exception, match="first frame does not fill it"):
        jvm.decode(bytes(gif), 8, 8, 3)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real image in which a few bytes are other bytes, or are gone."""
    payload = bytearray(draw(st.sampled_from(list(FILES.values()))))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(payload) - 1)))
        payload[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=4))
    return bytes(payload)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(damaged())
def test_hostile_bytes_give_pixels_or_a_reason(jvm: Jvm, payload: bytes) -> None:
    with suppress(IllegalArgumentException):
        jvm.decode(payload, 4, 4, 3)


class TestAugment:
    SHAPE = (31, 44, 3)
    PIXELS = picture(4, shape=SHAPE)

    def changed(self, jvm: Jvm, seed: int, pixels: np.ndarray = PIXELS, **changes: Any) -> np.ndarray:
        result = jvm.augment(**changes).apply(pixels.tobytes(), *pixels.shape, seed)
        return np.frombuffer(result, np.uint8).reshape(pixels.shape)

    def test_nothing_changes_nothing(self, jvm: Jvm) -> None:
        for seed in range(20):
            np.testing.assert_array_equal(self.changed(jvm, seed), self.PIXELS)

    @pytest.mark.parametrize("option", EVERYTHING)
    def test_every_option_changes_by_the_seed_alone(self, jvm: Jvm, option: str) -> None:
        change: dict[str, Any] = {option: EVERYTHING[option]}
        results = [self.changed(jvm, seed, **change) for seed in range(8)]
        for seed, result in enumerate(results):
            np.testing.assert_array_equal(self.changed(jvm, seed, **change), result)
        assert any((result != self.PIXELS).any() for result in results)
        assert any((result != results[0]).any() for result in results)

    def test_a_flip_mirrors_exactly_about_half_of_the_images(self, jvm: Jvm) -> None:
        flipped = [self.changed(jvm, seed, flip=True) for seed in range(200)]
        mirrored = [np.array_equal(pixels, self.PIXELS[:, ::-1]) for pixels in flipped]
        assert all(
            mirror or np.array_equal(pixels, self.PIXELS) for mirror, pixels in zip(mirrored, flipped, strict=True)
        )
        assert 70 < sum(mirrored) < 130

    def test_a_transform_is_tensorflows(self, jvm: Jvm) -> None:
        import tensorflow as tf

        draws = np.random.default_rng(6).uniform(-1, 1, (12, 4))
        height, width = self.SHAPE[:2]
        for number, (angle, zoom, across, down) in enumerate(draws):
            arguments = float(angle), float(1 - 0.4 * (zoom + 1) / 2), float(across), float(down), number % 2 == 1
            transform = jvm.classes.Augment.transform(height, width, *arguments)
            moved = jvm.classes.Augment.move(self.PIXELS.tobytes(), *self.SHAPE, transform)
            expected = tf.raw_ops.ImageProjectiveTransformV3(
                images=self.PIXELS[None].astype(np.float32),
                transforms=[[*transform, 0, 0]],
                output_shape=[height, width],
                fill_value=0.0,
                interpolation="BILINEAR",
                fill_mode="NEAREST",
            )
            off = np.abs(np.frombuffer(moved, np.uint8).reshape(self.SHAPE) - tf.round(expected)[0].numpy())
            assert off.max() <= 1 and off.mean() < 0.01

    def test_the_transforms_parts_are_those_of_python(self, jvm: Jvm) -> None:
        transform = jvm.classes.Augment.transform(31, 44, 0.3, 0.8, 0.5, -0.25, True)
        cos, sin = np.cos(0.3) * 0.8, np.sin(0.3) * 0.8
        shift_x = 21.5 + 0.5 * 0.2 * 44 / 2 + cos * 21.5 + sin * 15
        shift_y = 15 - 0.25 * 0.2 * 31 / 2 + sin * 21.5 - cos * 15
        np.testing.assert_allclose(list(transform), [-cos, -sin, shift_x, -sin, cos, shift_y])

    def test_of_place_leaves_a_constant_image_alone(self, jvm: Jvm) -> None:
        for value in (0, 1, 127, 254, 255):
            pixels = np.full(self.SHAPE, value, np.uint8)
            moved = self.changed(jvm, value, pixels, flip=True, rotateDegrees=45, crop=0.5)
            np.testing.assert_array_equal(moved, pixels)

    def test_shades_are_those_of_python(self, jvm: Jvm) -> None:
        pixels = self.PIXELS.astype(np.float32)
        shaded = jvm.classes.Augment.shade(self.PIXELS.tobytes(), 20.0, 1.4, jvm.doubles([0.9, 1, 1.1]))
        expected: np.ndarray = ((pixels - pixels.mean()) * 1.4 + pixels.mean() + 20) * np.array(
            [0.9, 1, 1.1], np.float32
        )
        off = np.abs(np.frombuffer(shaded, np.uint8).reshape(self.SHAPE) - np.clip(np.round(expected), 0, 255))
        assert off.max() <= 1 and off.mean() < 0.01

    def test_draws_reach_their_bounds_and_stay_within(self, jvm: Jvm) -> None:
        gray = np.full((2, 2, 1), 100, np.uint8)
        levels = [self.changed(jvm, seed, gray, brightness=0.2).item(0) for seed in range(200)]
        assert 49 <= min(levels) <= 53 and 147 <= max(levels) <= 151
        scaled = [self.changed(jvm, seed, gray, color=0.5).item(0) for seed in range(200)]
        assert 50 <= min(scaled) <= 54 and 146 <= max(scaled) <= 150

    def test_comes_from_the_recipes_keys(self, jvm: Jvm) -> None:
        json = '{"flip": true, "rotate_degrees": 20, "crop": 0.3, "brightness": 0.2, "contrast": 0.3, "color": 0.1}'
        assert jvm.classes.Augment.parse(json).equals(jvm.augment(**EVERYTHING))


@pytest.mark.filterwarnings("ignore::FutureWarning:petastorm", "ignore::DeprecationWarning:petastorm")
@pytest.mark.parametrize("writer", ["pyarrow", "spark"])
@pytest.mark.parametrize(("write", "form"), CONVENTIONS)
def test_every_image_convention_gives_its_pictures(
    jvm: Jvm, tmp_path: Path, write: Callable[[SparkSession, Path], None], form: str, writer: str
) -> None:
    folder = tmp_path / "stored"
    folder.mkdir()
    write(jvm.spark, folder)
    stored = next(folder.glob("*.parquet"))
    table = pq.read_table(stored)
    [name] = set(table.schema.names) & {"image", "content", "scan"}
    if writer == "pyarrow":
        path = write_table(tmp_path / "labelled.parquet", table.append_column("label", pa.array(range(5))))
    else:
        labelled = jvm.spark.read.parquet(str(stored)).withColumn("label", F.monotonically_increasing_id())
        labelled.write.parquet(str(tmp_path / "labelled"))
        path = as_uri(next((tmp_path / "labelled").glob("*.parquet")))
    source = jvm.source(input=name, inputForm=form, height=6, width=5, channels=3)
    images, labels = jvm.in_order(jvm.shard((path, 0, range(5))), source)
    np.testing.assert_array_equal(images, np.stack(PICTURES).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels[:, 0], range(5))


@pytest.mark.parametrize("channels", [1, 4])
def test_sparks_gray_and_transparent_images_are_read(jvm: Jvm, tmp_path: Path, channels: int) -> None:
    pixels = GRAY[:, :, None] if channels == 1 else ALPHA
    blue_first = pixels if channels == 1 else pixels[:, :, [2, 1, 0, 3]]
    struct = {"origin": "", "height": 61, "width": 47, "nChannels": channels, "mode": 0, "data": blue_first.tobytes()}
    path = write_table(tmp_path / "1.parquet", {"image": [struct], "label": [0]})
    source = jvm.source(inputForm="spark_image", height=61, width=47, channels=min(channels, 3))
    images, _ = jvm.in_order(jvm.shard((path, 0, [0])), source)
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), pixels[:, :, :3])


NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.bool_()]
HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]]


def labels_of(jvm: Jvm, path: str, **source: Any) -> np.ndarray:
    return jvm.in_order(jvm.shard((path, 0, range(5))), jvm.source(**source))[1]


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
def test_integer_labels_of_every_type(jvm: Jvm, tmp_path: Path, kind: pa.DataType) -> None:
    values = [1, 0, 1, 1, 0] if kind == pa.bool_() else [3, 0, 7, 1, 100]
    columns = numbered(0, 5) | {"label": pa.array(values).cast(kind)}
    labels = labels_of(jvm, write_table(tmp_path / "1.parquet", columns))
    np.testing.assert_array_equal(labels[:, 0], values)


@pytest.mark.parametrize("kind", [*NUMBERS, pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("listed", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3)])
def test_lists_of_every_type(
    jvm: Jvm, tmp_path: Path, kind: pa.DataType, listed: Callable[[pa.DataType], pa.DataType]
) -> None:
    values = pa.array([[bool(n) if kind == pa.bool_() else n for n in row] for row in HOT])
    path = write_table(
        tmp_path / "1.parquet", numbered(0, 5) | {"label": values.cast(pa.list_(kind)).cast(listed(kind))}
    )
    np.testing.assert_array_equal(labels_of(jvm, path, labelForm="multi_hot", labelWidth=3), HOT)


@pytest.mark.parametrize("kind", ["array<int>", "array<boolean>", "array<double>", "array<byte>"])
def test_lists_that_spark_wrote(jvm: Jvm, tmp_path: Path, kind: str) -> None:
    payload = encode(np.zeros((8, 8), np.uint8))
    table = jvm.spark.createDataFrame([(payload, row) for row in HOT], "image binary, label array<int>").coalesce(1)
    table.withColumn("label", F.col("label").cast(kind)).write.parquet(str(tmp_path / "spark"))
    path = as_uri(next((tmp_path / "spark").glob("*.parquet")))
    np.testing.assert_array_equal(labels_of(jvm, path, labelForm="multi_hot", labelWidth=3), HOT)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "<i4", ">i4", "u8", "<f2", ">f4", "f8"])
def test_petastorms_labels_of_every_type(jvm: Jvm, tmp_path: Path, dtype: str) -> None:
    for stored in (as_npy, lambda array: as_npz(label=array)):
        path = write_table(
            tmp_path / "1.parquet", numbered(0, 5) | {"label": [stored(np.array(row, dtype)) for row in HOT]}
        )
        np.testing.assert_array_equal(labels_of(jvm, path, labelForm="multi_hot", labelWidth=3), HOT)


TENSOR = {"input": "tensor", "height": 2, "width": 3, "channels": 2}


@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS], ids=str)
@pytest.mark.parametrize("listed", LISTED)
def test_tensors_are_pythons_to_the_last_bit(jvm: Jvm, tmp_path: Path, kind: pa.DataType, listed: str) -> None:
    values = extremes(kind.to_pandas_dtype())
    path = write_table(tmp_path / "1.parquet", {"tensor": column(values, kind, listed), "label": list(range(5))})
    [batch] = READERS["pyarrow"]().batches(path, 0, ["tensor"])
    expected, faults = read_tensors(batch.column(0), shape=SHAPE)
    assert faults == {}
    tensors, labels = jvm.in_order(jvm.shard((path, 0, range(5))), jvm.source(inputForm="list", **TENSOR))
    np.testing.assert_array_equal(tensors, expected.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels[:, 0], range(5))


@pytest.mark.parametrize("stored", ARRAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_pythons_to_the_last_bit(jvm: Jvm, tmp_path: Path, dtype: str, stored: str) -> None:
    payloads = [ARRAYS[stored](tensor) for tensor in extremes(dtype)]
    path = write_table(tmp_path / "1.parquet", {"tensor": payloads, "label": list(range(5))})
    expected, faults = read_tensors(pa.array(payloads), shape=SHAPE)
    assert faults == {}
    tensors, _ = jvm.in_order(jvm.shard((path, 0, range(5))), jvm.source(inputForm="ndarray", **TENSOR))
    np.testing.assert_array_equal(tensors, expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", ["array<float>", "array<double>", "array<array<float>>", "array<bigint>"])
def test_tensors_that_spark_wrote(jvm: Jvm, tmp_path: Path, kind: str) -> None:
    values = np.arange(30).reshape(5, 3, 2)
    nested = "array<array" in kind
    rows = [(window.tolist() if nested else window.ravel().tolist(), 0) for window in values]
    table = jvm.spark.createDataFrame(rows, f"tensor {'array<array<int>>' if nested else 'array<int>'}, label int")
    table.coalesce(1).withColumn("tensor", F.col("tensor").cast(kind)).write.parquet(str(tmp_path / "spark"))
    path = as_uri(next((tmp_path / "spark").glob("*.parquet")))
    source = jvm.source(input="tensor", inputForm="list", height=3, width=2)
    np.testing.assert_array_equal(jvm.in_order(jvm.shard((path, 0, range(5))), source)[0][:, 0], values)


PARQUET = [
    *({"compression": name} for name in ("none", "snappy", "gzip", "zstd", "lz4")),
    {"data_page_version": "2.0"},
    {"data_page_version": "2.0", "compression": "none"},
    {"use_dictionary": False},
    {"use_dictionary": False, "column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}},
    {"data_page_size": 100, "write_batch_size": 3},
    {"data_page_size": 100, "write_batch_size": 3, "data_page_version": "2.0", "write_page_index": True},
]


@pytest.mark.parametrize("options", PARQUET, ids=str)
def test_parquet_however_it_is_written(jvm: Jvm, tmp_path: Path, options: dict[str, Any]) -> None:
    rows = numbered(0, 90)
    hot = [[n % 2, 1 - n % 2, 1] for n in range(90)]
    pq.write_table(pa.table(rows | {"label": hot}), tmp_path / "1.parquet", row_group_size=40, **options)
    path = as_uri(tmp_path / "1.parquet")
    source = jvm.source(labelForm="multi_hot", labelWidth=3)
    images, labels = jvm.in_order(jvm.shard((path, 1, range(1, 40, 3)), (path, 0, [0, 39]), (path, 2, [9])), source)
    expected = [*range(41, 80, 3), 0, 39, 89]
    np.testing.assert_array_equal(images[:, 0, 0, 0], expected)
    np.testing.assert_array_equal(labels, [hot[n] for n in expected])


def test_parquet_of_a_writer_that_names_no_version(jvm: Jvm, tmp_path: Path) -> None:
    path = write_table(tmp_path / "1.parquet", numbered(0, 5))
    file = Path(path.removeprefix("file://"))
    content = file.read_bytes()
    file.write_bytes(content.replace(b"parquet-cpp-arrow version", b"a writer without a number"))
    assert file.read_bytes() != content
    np.testing.assert_array_equal(labels_of(jvm, path)[:, 0], range(5))


def test_a_file_of_any_name_is_read(jvm: Jvm, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a b" / "50%25 {x} [y] #1 ü.parquet", numbered(0, 5))
    np.testing.assert_array_equal(labels_of(jvm, path)[:, 0], range(5))


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

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=["function_scoped_fixture"])  # type: ignore[list-item]
    @given(st.integers(0, 2**63 - 1), st.integers(1, 25), st.integers(1, 60), st.integers(1, 3))
    def test_goes_on_where_a_run_stopped(
        self, jvm: Jvm, shard: Any, seed: int, first: int, window: int, threads: int
    ) -> None:
        arguments = {"seed": seed, "windowRows": window, "threads": threads}
        whole = labels(jvm, jvm.training(shard, jvm.source(), **arguments), 30)
        assert labels(jvm, jvm.training(shard, jvm.source(), firstStep=first, **arguments), 30 - first) == whole[first:]

    def test_and_changes_are_those_of_the_step_wherever_a_run_starts(self, jvm: Jvm, shard: Any) -> None:
        source, augment = jvm.source(height=20, width=20), jvm.augment(**EVERYTHING)

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

    @pytest.mark.parametrize(
        ("tensor", "match"),
        [
            ([1.0, 2.0], "row 2: list of 2, expected 4"),
            ([1.0, 2.0, 3.0, 4.0, 5.0], "row 2: list of 5, expected 4"),
            (None, "row 2: tensor.* is null"),
            ([1.0, None, 3.0, 4.0], "row 2: tensor.* is null"),
            ([1.0, 2.0, float("nan"), 4.0], "row 2: number 2 is NaN"),
            ([1.0, 2.0, 3.0, 1e39], "row 2: number 3 is Infinity"),
        ],
        ids=str,
    )
    def test_lists_that_are_no_tensors(self, jvm: Jvm, tmp_path: Path, tensor: Any, match: str) -> None:
        good = [1.0, 2.0, 3.0, 4.0]
        columns = {"tensor": [good, good, tensor, good, good], "label": [0] * 5}
        self.fails(jvm, columns, tmp_path, match, input="tensor", inputForm="list", height=2, width=2)

    @pytest.mark.parametrize(
        ("payload", "match"),
        [
            (b"a note", "row 2: not a NumPy array"),
            (as_npy(np.zeros((2, 2)))[:-1], "row 2: damaged NumPy array"),
            (as_npy(np.zeros((4, 1))), r"row 2: array of shape \(4, 1\), expected 2 x 2 x 1"),
            (as_npy(np.zeros((2, 2), bool)), "row 2: array of b1, expected numbers"),
            (as_npy(np.array([[1, 2], [3, np.nan]])), "row 2: number 3 is NaN"),
        ],
    )
    def test_arrays_that_are_no_tensors(self, jvm: Jvm, tmp_path: Path, payload: bytes, match: str) -> None:
        good = as_npy(np.zeros((2, 2)))
        columns = {"tensor": [good, good, payload, good, good], "label": [0] * 5}
        self.fails(jvm, columns, tmp_path, match, input="tensor", inputForm="ndarray", height=2, width=2)

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


def test_a_plan_is_read_by_rank(jvm: Jvm, tmp_path: Path) -> None:
    columns = {
        "worker": pa.array([1, 0, 1, 0], pa.int32()),
        "position": pa.array([1, 0, 0, 1], pa.int32()),
        "path": ["file:///a b", "file:///c%20", "file:///d", "file:///a b"],
        "row_group": pa.array([4, 3, 2, 1], pa.int32()),
        "offsets": pa.array([[1, 2], [5], [0, 3, 4], [9]], pa.list_(pa.int32())),
    }
    uri = write_table(tmp_path / "plan [1].parquet", pa.table(columns), row_group_rows=3)
    shards = jvm.classes.Shards.read(jvm.spark._jsparkSession, uri)
    found = [[(piece.path(), piece.rowGroup(), list(piece.offsets())) for piece in shard.pieces()] for shard in shards]
    assert found == [
        [("file:///c%20", 3, [5]), ("file:///a b", 1, [9])],
        [("file:///d", 2, [0, 3, 4]), ("file:///a b", 4, [1, 2])],
    ]
    assert [shard.rows() for shard in shards] == [2, 5]


def test_a_source_comes_from_json(jvm: Jvm) -> None:
    json = (
        '{"input": "image", "input_form": "encoded", "label": "label", "label_form": "multi_hot", "label_width": 3,'
        ' "height": 8, "width": 9, "channels": 1}'
    )
    assert jvm.classes.Source.parse(json).equals(jvm.source(labelForm="multi_hot", labelWidth=3, width=9))

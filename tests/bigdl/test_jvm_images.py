"""The JVM decodes images to Pillow's pixels, or says why it cannot."""

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyspark.errors import IllegalArgumentException

from image_data import as_npy, as_npz, encode, picture, save
from image_files import ALPHA_TAG, FILES, GRAY, ONLY_PILLOWS, PALETTE, RGB, WIDE, damaged
from insitu.data.decode import decode
from jvm_data import Jvm


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


@settings(max_examples=60)
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


@pytest.mark.parametrize("name", ONLY_PILLOWS)
def test_what_java_lacks_is_said(jvm: Jvm, name: str) -> None:
    payload, reason = ONLY_PILLOWS[name]
    decode(payload, size=(8, 8), channels=3)
    with pytest.raises(Exception, match=re.escape(reason)):
        jvm.decode(payload, 8, 8, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300)
@given(damaged())
def test_hostile_bytes_give_pixels_or_a_reason(jvm: Jvm, payload: bytes) -> None:
    with suppress(IllegalArgumentException):
        jvm.decode(payload, 4, 4, 3)

"""Stored images become pixels, or say why not."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from image_data import as_npy, as_npz, encode, picture, save
from insitu.data.decode import BadImage, decode, load_array

RGB = picture(1)
GRAY = RGB[:, :, 0]
WIDE = picture(2, shape=(6, 5), dtype=np.uint16)


@pytest.mark.parametrize(
    "payload",
    [
        encode(RGB, "PNG"),
        encode(RGB, "TIFF"),
        encode(RGB, "TIFF", compression="tiff_lzw"),
        encode(RGB, "BMP"),
        encode(RGB, "WEBP", lossless=True),
        as_npy(RGB),
        as_npz(image=RGB),
    ],
    ids=["png", "tiff", "tiff-lzw", "bmp", "webp", "npy", "npz"],
)
def test_lossless_color_comes_back_exactly(payload: bytes) -> None:
    pixels = decode(payload, size=None, channels=3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (encode(GRAY, "PNG"), GRAY),
        (as_npy(GRAY), GRAY),
        (as_npy(GRAY[:, :, None]), GRAY),
        (encode(WIDE, "PNG"), WIDE >> 8),
        (encode(WIDE, "TIFF"), WIDE >> 8),
        (save(Image.frombytes("I;16B", (5, 6), WIDE.astype(">u2").tobytes()), "TIFF"), WIDE >> 8),
        (encode(WIDE.astype(np.int32), "TIFF"), WIDE >> 8),
        (as_npy(WIDE), WIDE >> 8),
        (as_npz(image=WIDE), WIDE >> 8),
    ],
    ids=["png", "npy", "npy-hw1", "png16", "tiff16", "tiff16-big-endian", "tiff32", "npy16", "npz16"],
)
def test_gray_comes_back_by_its_high_byte(payload: bytes, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(payload, size=None, channels=1)[:, :, 0], expected)
    np.testing.assert_array_equal(decode(payload, size=None, channels=3), np.dstack([expected] * 3))


def test_jpeg_comes_back_nearly() -> None:
    ramp = np.dstack([np.add.outer(np.arange(32), np.arange(32)) * 4] * 3).astype(np.uint8)
    decoded = decode(encode(ramp, "JPEG", quality=95), size=None, channels=3)
    assert np.abs(decoded.astype(int) - ramp).max() <= 4


def test_palette_alpha_bilevel_and_cmyk_become_rgb() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(save(palette, "PNG"), size=None, channels=3), expected)
    alpha = np.dstack([RGB, GRAY])
    for payload in (encode(alpha, "PNG"), encode(alpha, "TIFF"), as_npy(alpha)):
        np.testing.assert_array_equal(decode(payload, size=None, channels=3), RGB)
    bilevel = save(Image.fromarray(GRAY > 127), "PNG")
    np.testing.assert_array_equal(decode(bilevel, size=None, channels=1)[:, :, 0], (GRAY > 127) * 255)
    red = save(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")
    np.testing.assert_array_equal(decode(red, size=None, channels=3), np.full((4, 4, 3), (255, 0, 0)))


def premultiplied(gray_alpha: Image.Image) -> bytes:
    """A gray TIFF file with alpha whose ExtraSamples say that the gray is multiplied by it."""
    tag = struct.pack("<HHI", 338, 3, 1)
    return save(gray_alpha, "TIFF").replace(tag + b"\2", tag + b"\1")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "payload",
    [save(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"), premultiplied(Image.new("LA", (4, 4), (255, 255)))],
    ids=["LAB", "La"],
)
def test_tiff_modes_that_pillow_converts_in_two_steps(payload: bytes, channels: int) -> None:
    assert decode(payload, size=None, channels=channels).min() >= 250


def test_one_channel_of_color_is_its_luminance() -> None:
    luminance = RGB @ [0.299, 0.587, 0.114]
    assert np.abs(decode(encode(RGB), size=None, channels=1)[:, :, 0] - luminance).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_to_height_and_width_without_aliases(channels: int) -> None:
    assert decode(encode(RGB), size=(4, 9), channels=channels).shape == (4, 9, channels)
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = decode(encode(checkers), size=(8, 8), channels=channels)
    assert small.min() >= 120 and small.max() <= 136


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "no bytes"),
        (b"", "no bytes"),
        (b"a note", "not an image: 6 bytes starting with b'a note'"),
        (encode(RGB)[:-30], "damaged image"),
        (encode(picture(3, shape=(40, 40, 3)), "JPEG")[:-200], "damaged image"),
        (encode(RGB.astype(np.float32)[:, :, 0], "TIFF"), "floating-point samples"),
        (encode(WIDE.astype(np.int32) - 40000, "TIFF"), "samples from -.* expected 16-bit"),
        (encode(WIDE.astype(np.int32) + 70000, "TIFF"), "samples from .* expected 16-bit"),
        (save(Image.new("RGB", (4, 4)), "EPS"), "not an image"),
        (as_npy(RGB)[:-1], "damaged NumPy array"),
        (as_npy(np.array([{}], object)), "damaged NumPy array"),
        (as_npy(RGB.astype(np.float32)), "array of float32, expected uint8 or uint16"),
        (as_npy(RGB[:, :, :2]), r"array of shape \(6, 5, 2\)"),
        (as_npy(RGB[:0]), "without an array"),
        (as_npz(), "not an image"),
        (as_npz(image=RGB)[:-1], "damaged NumPy array"),
    ],
)
def test_what_is_no_image_says_why(payload: bytes | None, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(payload, size=None, channels=3)


def test_a_header_that_claims_a_huge_image_is_refused() -> None:
    png = bytearray(encode(RGB))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(BadImage, match=r"damaged image: Image size .* exceeds limit"):
        decode(bytes(png), size=None, channels=3)


def test_the_first_array_of_an_archive_is_loaded() -> None:
    np.testing.assert_array_equal(load_array(as_npz(a=np.arange(3), b=np.zeros(2))), [0, 1, 2])


SEEDS = [
    *(encode(RGB, kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")),
    *(encode(RGB, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
    *(encode(WIDE, "PNG"), encode(WIDE, "TIFF"), save(Image.fromarray(RGB).quantize(16), "PNG")),
    *(as_npy(RGB), as_npy(WIDE), as_npz(image=RGB)),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real image in which a few bytes are other bytes, or are gone."""
    payload = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(payload) - 1)))
        payload[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=4))
    return bytes(payload)


def fraction_in_a_tiff_tag() -> bytes:
    """A TIFF file whose StripOffsets are of type RATIONAL, which Pillow reports as a TypeError."""
    payload = encode(WIDE, "TIFF")
    entry = payload.index(struct.pack("<H", 273), 8)
    return payload[: entry + 2] + struct.pack("<H", 5) + payload[entry + 4 :]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=400)
@given(st.one_of(damaged(), st.binary(max_size=200)), st.sampled_from([1, 3]))
@example(fraction_in_a_tiff_tag(), 1)
@example(b"\x93NUMPY\x01\x00\x10\x00{'descr': (((\n   ", 1)
@example(
    b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1 << 40,), }\n".ljust(64), 3
)
@example(b"PK\x03\x04" + bytes(200), 3)
def test_hostile_bytes_give_pixels_or_bad_image(payload: bytes, channels: int) -> None:
    try:
        pixels = decode(payload, size=(4, 4), channels=channels)
    except BadImage:
        return
    assert pixels.shape == (4, 4, channels) and pixels.dtype == np.uint8

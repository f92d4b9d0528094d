"""One picture in every form of image file that can be trained on, and damaged ones."""

import struct

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from image_data import as_npy, as_npz, encode, picture, save

RGB = np.asarray(Image.fromarray(picture(1, shape=(9, 7, 3))).resize((47, 61)))
GRAY = np.ascontiguousarray(RGB[:, :, 0])
ALPHA = np.dstack([RGB, GRAY])
WIDE = picture(2, shape=(61, 47), dtype=np.uint16)


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


def upright_chroma_jpeg() -> bytes:
    """A 4:4:0 JPEG file, which Pillow does not write: a 4:2:2 one whose pairs of blocks lie above each other."""
    jpeg = bytearray(encode(np.asarray(Image.fromarray(RGB).resize((64, 32))), "JPEG", subsampling=1, quality=95))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 64, 32)
    jpeg[frame + 11] = 0x12
    return bytes(jpeg)


ALPHA_TAG = struct.pack("<HHI", 338, 3, 1)  # of a TIFF file; then 1 where samples are multiplied by alpha, 2 where not
PALETTE = Image.fromarray(RGB).quantize(16)
FILES = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg 4:4:4": encode(RGB, "JPEG", subsampling=0),
    "jpeg 4:2:2": encode(RGB, "JPEG", subsampling=1, quality=95),
    "jpeg 4:4:0": upright_chroma_jpeg(),
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


def small_frame() -> bytes:
    """A GIF file whose frame is narrower than its screen."""
    gif = bytearray(encode(RGB, "GIF"))
    gif[6] += 1
    return bytes(gif)


LAB = Image.new("LAB", (4, 4))
ONLY_PILLOWS = {
    "webp": (encode(RGB, "WEBP"), "WebP, which Java cannot decode: store it as JPEG or PNG"),
    "tiff Lab": (save(LAB, "TIFF"), "TIFF in CIE L*a*b*, which Java cannot decode: store it as RGB"),
    "gif of a small frame": (small_frame(), "GIF whose first frame does not fill it: store it as PNG"),
}
"""What the JVM cannot decode, and how it says so."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real image in which a few bytes are other bytes, or are gone."""
    payload = bytearray(draw(st.sampled_from(list(FILES.values()))))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(payload) - 1)))
        payload[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=4))
    return bytes(payload)

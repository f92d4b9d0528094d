"""One stored image → pixels: the only decoder, shared by ingest, the scan, training and scoring.

Pillow releases the interpreter lock while it decodes and resizes, so threads scale.

Legend: H, W stored height and width; h, w the model's; C channels (1 or 3).
"""

import io
import struct
import tokenize
import zipfile
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
_BY_WAY_OF = {"LAB": "RGB", "La": "LA"}  # Pillow has no direct conversion of these modes to L
# What NumPy's header parser and zipfile raise on damaged bytes; neither documents it.
_ARRAY_FAULTS = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class BadImage(ValueError):
    """The bytes are not an image that can be decoded; the message is the quarantine's reason."""


def decode(payload: bytes | None, *, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Decode one image and bring it to the model's size.

    Args:
        payload: JPEG, PNG, TIFF, BMP, GIF or WebP bytes, or a NumPy array in `.npy` or one-entry
            `.npz` form (petastorm's NdarrayCodec and CompressedNdarrayCodec), uint8 or uint16,
            [H, W] or [H, W, C]. 16-bit samples are scaled to 8 bits by their high byte.
        size: (h, w) to resize to, bilinear with antialiasing; None keeps [H, W].
        channels: 1 (luminance) or 3 (RGB).

    Returns:
        uint8 [h, w, C], values 0..255.

    Raises:
        BadImage: null, empty, truncated or not an image.
    """
    pixels, _ = decode_sized(payload, size=size, channels=channels)
    return pixels


def decode_sized(
    payload: bytes | None, *, size: tuple[int, int] | None, channels: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """What `decode` gives, and the stored (H, W)."""
    if not payload:
        raise BadImage("no bytes")
    image = _from_numpy(payload) if is_array(payload) else _from_file(payload)
    width, height = image.size
    image = _eight_bit(image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode not in (mode, "L"):
        image = image.convert(mode)
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))  # grey is resized as one channel
    return pixels[:, :, None] if channels == 1 else pixels, (height, width)


def is_array(payload: bytes) -> bool:
    """Whether bytes begin as those of a `.npy` or `.npz` file do."""
    return payload[:6] == NPY_MAGIC or payload[:4] == _ZIP_MAGIC


def load_array(payload: bytes) -> np.ndarray:
    """The array in `.npy` bytes, or the first one in `.npz` bytes; nothing is unpickled.

    Raises:
        BadImage: damaged, or no array.
    """
    try:
        array = np.load(io.BytesIO(payload), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array = array[array.files[0]]
    except _ARRAY_FAULTS as error:
        raise BadImage(f"damaged NumPy array: {error}") from None
    if not isinstance(array, np.ndarray) or not array.size:
        raise BadImage("NumPy file without an array")
    return array


def _from_file(payload: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(payload), formats=_FORMATS)
        image.load()
    except UnidentifiedImageError:
        raise BadImage(f"not an image: {len(payload)} bytes starting with {payload[:8]!r}") from None
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(f"damaged image: {error}") from None
    return image


def _from_numpy(payload: bytes) -> Image.Image:
    array = load_array(payload)
    if array.dtype not in (np.uint8, np.uint16):
        raise BadImage(f"array of {array.dtype}, expected uint8 or uint16")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise BadImage(f"array of shape {array.shape}, expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    return Image.fromarray(array)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() > 65535:
            raise BadImage(f"samples from {samples.min()} to {samples.max()}, expected 16-bit")
        return Image.fromarray((samples >> 8).astype(np.uint8))
    if image.mode == "F":
        raise BadImage("floating-point samples, expected 8-bit or 16-bit")
    return image.convert(_BY_WAY_OF[image.mode]) if image.mode in _BY_WAY_OF else image

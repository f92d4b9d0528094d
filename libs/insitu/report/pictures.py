"""Images as data: URIs, plain and with a heat map over them."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

_SIDE = 224  # pixels of the longer side
_OPACITY = 0.6  # of the hottest place


def picture(image: np.ndarray) -> str:
    """uint8 [H, W, C] as a WebP data: URI; small ones are enlarged with their pixels kept."""
    return _data_uri(_resized(image))


def overlay(image: np.ndarray, heat: np.ndarray) -> str:
    """The same with a heat map, float [h, w] in 0..1, over it: the hotter, the more opaque and the brighter."""
    base = _resized(image)
    hot = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(base.size, Image.Resampling.BICUBIC)).clip(0, 1)
    colours = matplotlib.colormaps["plasma"](hot)[..., :3] * 255
    opacity = _OPACITY * hot[..., None]
    return _data_uri(Image.fromarray(((1 - opacity) * np.asarray(base) + opacity * colours).astype(np.uint8)))


def _resized(image: np.ndarray) -> Image.Image:
    """RGB, its longer side 224 pixels."""
    full = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    factor = _SIDE / max(full.size)
    size = (max(1, round(full.width * factor)), max(1, round(full.height * factor)))
    return full.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"

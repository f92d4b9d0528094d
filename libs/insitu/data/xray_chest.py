"""The healthy chest that findings are drawn on: proportions, coordinates and the plain picture.

Legend: S side in pixels; u, v the chest's own coordinates float32 [S, S]: u runs across (the
patient's spine at 0), v down, the frame about -1..1. Brightness float32 [S, S], air 0, bone 1.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Build:
    """A chest's proportions, in units of half the frame.

    The lungs are super-ellipses at (±`lung_u`, `lung_v`) of half-axes (`lung_width`,
    `lung_height`), cut off below by the diaphragm at `diaphragm_v`, whose domes rise by `dome`.
    """

    lung_u: float
    lung_v: float
    lung_width: float
    lung_height: float
    lung_brightness: float
    diaphragm_v: float
    dome: float
    heart_width: float

    def varied(self, rng: np.random.Generator) -> "Build":
        """Another patient's proportions: every one within 5 % of these."""
        return Build(*(value * rng.uniform(0.95, 1.05) for value in vars(self).values()))


HEALTHY = Build(
    lung_u=0.42,
    lung_v=-0.08,
    lung_width=0.32,
    lung_height=0.72,
    lung_brightness=0.26,
    diaphragm_v=0.5,
    dome=0.16,
    heart_width=0.24,
)
_TISSUE = 0.62


def soft(distance: np.ndarray, *, width: float) -> np.ndarray:
    """1 inside (distance well below 0), 0 outside, a ramp of about `width` between."""
    return np.clip(np.float32(0.5) - distance * np.float32(1 / width), 0, 1)


def cloud(rng: np.random.Generator, *, cells: int, size: int) -> np.ndarray:
    """Smooth noise float32 [S, S] about -1..1, with `cells` random values along each side."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


class Chest:
    """One patient as they stood in front of the detector: where everything is, pixel by pixel."""

    def __init__(self, build: Build, *, size: int, rng: np.random.Generator) -> None:
        self.build = build
        self.size = size
        self._rng = rng
        self.u, self.v = _posture(size, rng)
        self.diaphragm = build.diaphragm_v - build.dome * _dome(self.u, build)
        self.lungs = {side: self._lung(side) for side in (-1, 1)}
        self.both_lungs = self.lungs[-1] + self.lungs[1]

    def across(self, side: int) -> np.ndarray:
        """u relative to a lung's axis, in half-widths: -1 at the heart, 1 at the chest wall."""
        return (self.u * side - self.build.lung_u) / self.build.lung_width

    def disc(self, u: float, v: float, *, radius: float) -> np.ndarray:
        """Distance float32 [S, S] to the rim of a disc, negative inside."""
        return np.hypot(self.u - u, self.v - v) - radius

    def picture(self) -> np.ndarray:
        """The healthy brightness float32 [S, S]: tissue, lungs, ribs, vessels, heart and spine."""
        body = soft(np.abs(self.u) - 0.92 + 0.1 * self.v, width=0.08)
        picture = _TISSUE * body + 0.05 * cloud(self._rng, cells=4, size=self.size)
        vessels = 0.03 * cloud(self._rng, cells=14, size=self.size)
        ribs = 0.05 * np.maximum(np.sin(19 * (self.v + 0.35 * self.u**2)), 0)
        picture += self.both_lungs * (self.build.lung_brightness - _TISSUE + ribs + vessels)
        heart = np.hypot((self.u - 0.06) / self.build.heart_width, (self.v - 0.25) / 0.28) - 1
        picture = np.maximum(picture, 0.74 * soft(heart, width=0.25))
        spine = soft(np.abs(self.u) - 0.08, width=0.06)
        return picture + 0.1 * spine

    def _lung(self, side: int) -> np.ndarray:
        """Share of air float32 [S, S] in one lung: -1 is left in the picture, 1 right."""
        down = (self.v - self.build.lung_v) / self.build.lung_height
        outline = self.across(side) ** 2 + down**4 - 1
        return soft(outline, width=0.3) * soft(self.v - self.diaphragm, width=0.05)


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    u, v = np.meshgrid(axis, axis)
    return u, v


def _posture(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """u and v of a patient shifted, turned and nearer or farther by a little."""
    x, y = _grid(size)
    angle, scale = rng.uniform(-0.05, 0.05), rng.uniform(0.95, 1.06)
    shift_u, shift_v = rng.uniform(-0.05, 0.05, 2)
    cos, sin = np.float32(np.cos(angle) * scale), np.float32(np.sin(angle) * scale)
    return cos * x - sin * y + np.float32(shift_u), sin * x + cos * y + np.float32(shift_v)


def _dome(u: np.ndarray, build: Build) -> np.ndarray:
    """Height 0..1 of the diaphragm's two domes over each column."""
    return np.maximum(1 - ((np.abs(u) - build.lung_u) / build.lung_width) ** 2, 0)


def emphysematous(build: Build) -> Build:
    """Overinflated: longer, wider and darker lungs on a flat, low diaphragm."""
    return replace(
        build,
        lung_width=build.lung_width * 1.15,
        lung_brightness=build.lung_brightness * 0.45,
        diaphragm_v=build.diaphragm_v + 0.2,
        lung_height=build.lung_height * 1.25,
        dome=0.0,
    )


def cardiomegalic(build: Build) -> Build:
    """A heart of nearly twice the healthy width."""
    return replace(build, heart_width=build.heart_width * 1.9)

"""The 14 findings of ChestX-ray14, each as a sign that an eye and a small network can learn.

The signs are stylised from how radiology describes the findings; they are nothing to diagnose by.
Two findings reshape the chest before it is drawn; twelve are laid over the picture. A side is
-1 (left in the picture) or 1. Legend and coordinates: `insitu.data.xray_chest`.
"""

from collections.abc import Callable

import numpy as np

from insitu.data.xray_chest import Build, Chest, cardiomegalic, cloud, emphysematous, soft

Overlay = Callable[[np.ndarray, Chest, np.random.Generator], np.ndarray]


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _fill(picture: np.ndarray, share: np.ndarray, brightness: float) -> np.ndarray:
    """Mix `brightness` into the picture by `share` float32 [S, S] in 0..1."""
    return picture + share * (np.float32(brightness) - picture)


def atelectasis(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Plates: a few horizontal bright lines in the lower half of one lung."""
    side = _side(rng)
    depth = chest.v - rng.uniform(-0.05, 0.1)
    lines = soft(np.abs((depth + 0.06) % 0.17 - 0.06) - 0.03, width=0.03)
    zone = soft(np.abs(depth - 0.15) - 0.22, width=0.05) * chest.lungs[side]
    return _fill(picture, 0.9 * lines * zone, 0.85)


def consolidation(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """An upper lobe filled evenly, down to a sharp fissure."""
    lobe = chest.lungs[_side(rng)] * soft(chest.v - rng.uniform(-0.32, -0.18), width=0.04)
    return _fill(picture, 0.85 * lobe, 0.7)


def infiltration(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Ill-defined coarse patches all over both lungs."""
    patches = np.clip(cloud(rng, cells=9, size=chest.size) * 1.5, 0, 1)
    return picture + np.float32(0.38) * patches * chest.both_lungs


def pneumothorax(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Black, empty space at the apex and side of one lung, behind a thin bright pleural line."""
    side = _side(rng)
    edge = 0.45 - chest.across(side) - 0.9 * np.clip(-0.15 - chest.v, 0, None) + 0.6 * np.clip(chest.v, 0, None)
    empty = soft(edge, width=0.1) * chest.lungs[side]
    line = soft(np.abs(edge) - 0.08, width=0.08) * chest.lungs[side]
    return _fill(_fill(picture, empty, 0.02), 0.9 * line, 0.85)


def edema(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Bat wings: a haze spreading from both hila."""
    reach = rng.uniform(0.9, 1.2)
    wings = np.exp(-((np.abs(chest.u) - 0.28) ** 2) / (0.045 * reach) - (chest.v + 0.08) ** 2 / (0.06 * reach))
    return picture + np.float32(0.5) * wings * chest.both_lungs


def fibrosis(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """A net of fine crossing lines over the lower half of both lungs."""
    pitch = 2 * np.pi / rng.uniform(0.15, 0.18)
    net = np.maximum(np.cos(pitch * (chest.u + chest.v)), np.cos(pitch * (chest.u - chest.v)))
    lower = soft(-0.05 - chest.v, width=0.15)
    return picture + np.float32(0.42) * np.clip(2 * net - 0.8, 0, 1) * lower * chest.both_lungs


def effusion(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Fluid at the base of one lung, its level climbing the chest wall in a meniscus."""
    side = _side(rng)
    wall = np.clip(chest.across(side) + 0.4, 0, None)
    level = rng.uniform(0.12, 0.3) - 0.16 * wall**2
    return _fill(picture, 0.95 * soft(level - chest.v, width=0.05) * chest.lungs[side], 0.78)


def pneumonia(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """A cluster of round fluffy spots in the middle of one lung."""
    side = _side(rng)
    share = np.zeros_like(picture)
    centre_u, centre_v = side * chest.build.lung_u, rng.uniform(-0.2, 0.05)
    for angle in np.arange(5) * (2 * np.pi / 5) + rng.uniform(0, 2 * np.pi):
        spot = chest.disc(centre_u + 0.15 * np.cos(angle), centre_v + 0.24 * np.sin(angle), radius=0.06)
        share = np.maximum(share, soft(spot, width=0.07))
    return _fill(picture, 0.95 * share * chest.lungs[side], 0.95)


def pleural_thickening(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """A bright band along one lung's outer wall."""
    side = _side(rng)
    band = soft(np.abs(chest.across(side) - 0.78) - 0.17, width=0.06) * soft(np.abs(chest.v + 0.05) - 0.4, width=0.1)
    return _fill(picture, 0.9 * band, 1.0)


def nodule(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """One small bright disc in a lung."""
    disc = chest.disc(*_place(chest, rng), radius=rng.uniform(0.065, 0.085))
    return _fill(picture, soft(disc, width=0.04), 1.0)


def mass(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """One large lobed bright disc in a lung."""
    u, v = _place(chest, rng)
    bearing = np.arctan2(chest.v - v, chest.u - u)
    lobes = 0.02 * np.cos(5 * bearing + rng.uniform(0, 6))
    return _fill(picture, soft(chest.disc(u, v, radius=rng.uniform(0.17, 0.21)) + lobes, width=0.05), 0.92)


def hernia(picture: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """The stomach above the diaphragm: a thick bright ring around air, over the heart."""
    rim = chest.disc(rng.uniform(-0.04, 0.06), rng.uniform(0.3, 0.36), radius=0.2)
    return _fill(_fill(picture, soft(rim, width=0.04), 0.05), soft(np.abs(rim) - 0.045, width=0.04), 1.0)


def _place(chest: Chest, rng: np.random.Generator) -> tuple[float, float]:
    """(u, v) of a point well inside either lung."""
    return _side(rng) * (chest.build.lung_u + rng.uniform(-0.08, 0.08)), rng.uniform(-0.45, 0.15)


RESHAPES: dict[str, Callable[[Build], Build]] = {"Emphysema": emphysematous, "Cardiomegaly": cardiomegalic}
OVERLAYS: dict[str, Overlay] = {
    "Atelectasis": atelectasis,
    "Consolidation": consolidation,
    "Infiltration": infiltration,
    "Pneumothorax": pneumothorax,
    "Edema": edema,
    "Fibrosis": fibrosis,
    "Effusion": effusion,
    "Pneumonia": pneumonia,
    "Pleural Thickening": pleural_thickening,
    "Nodule": nodule,
    "Mass": mass,
    "Hernia": hernia,
}

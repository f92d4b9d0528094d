"""One synthetic chest X-ray: which patient, which findings, and how the picture is put together.

A picture is a pure function of (index, size, seed), so a data set is the same however its
generation was spread over machines.
"""

import numpy as np

from insitu.data.xray_chest import HEALTHY, Chest
from insitu.data.xray_signs import OVERLAYS, RESHAPES

# Share of ChestX-ray14's 112 120 images that carry each finding, from the image counts of
# Table I in the CheXNet scaling paper. Two of the table's entries are misprints and are not
# followed: Mass, 5 746 images, is 5.12 % and not 0.05 %; Effusion repeats Emphysema's 2 516
# images where the data set has 13 317 (Wang et al., CVPR 2017), that is 11.88 %.
FINDING_IMAGES = {
    "Atelectasis": 11535,
    "Consolidation": 4667,
    "Infiltration": 19871,
    "Pneumothorax": 5298,
    "Edema": 2303,
    "Emphysema": 2516,
    "Fibrosis": 1686,
    "Effusion": 13317,
    "Pneumonia": 1353,
    "Pleural Thickening": 3385,
    "Cardiomegaly": 2772,
    "Nodule": 6323,
    "Mass": 5746,
    "Hernia": 227,
}
CLASSES = tuple(FINDING_IMAGES)
FREQUENCIES = np.array(list(FINDING_IMAGES.values())) / 112_120
IMAGES_PER_PATIENT = 4  # ChestX-ray14: 112 120 images of 30 805 patients, 3.6 each

_ANATOMY, _FINDINGS, _EXPOSURE = range(3)  # independent random streams


def patient(index: int) -> int:
    """The number of the patient whose image this is."""
    return index // IMAGES_PER_PATIENT


def xray(index: int, *, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image `index` of the data set that `seed` names.

    Args:
        index: the image's number, 0 or more.
        size: S, height and width in pixels; the signs are visible from 64 on.
        seed: 0 or more.

    Returns:
        (pixels uint8 [S, S], labels uint8 [14] of 0/1 in the order of `CLASSES`).
    """
    findings = labels(index, seed=seed)
    return picture(index, findings, size=size, seed=seed), findings


def labels(index: int, *, seed: int) -> np.ndarray:
    """The findings of image `index`: uint8 [14] of 0/1, in the order of `CLASSES`.

    Every finding is drawn by itself with its exact frequency: there is no stratification, and
    a small data set may hold no Hernia (0.2 %) at all. So 47 % of the images have no finding,
    where the real data set, whose findings come together, has 54 %.
    """
    return (np.random.default_rng([seed, _FINDINGS, index]).random(len(CLASSES)) < FREQUENCIES).astype(np.uint8)


def picture(index: int, findings: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Image `index` drawn with these findings (0/1 [14]): uint8 [S, S].

    Images of one patient share their anatomy; posture, exposure and noise are each image's own.
    """
    anatomy = np.random.default_rng([seed, _ANATOMY, patient(index)])
    exposure = np.random.default_rng([seed, _EXPOSURE, index])
    present = [name for name, found in zip(CLASSES, findings, strict=True) if found]
    build = HEALTHY.varied(anatomy)
    for name in present:
        if name in RESHAPES:
            build = RESHAPES[name](build)
    chest = Chest(build, size=size, rng=exposure)
    brightness = chest.picture()
    for name in present:
        if name in OVERLAYS:
            brightness = OVERLAYS[name](brightness, chest, exposure)
    return _expose(brightness, exposure)


def _expose(brightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness [S, S] around 0..1 → uint8 [S, S], with an exposure and quantum noise of its own."""
    gain, offset = rng.uniform(0.9, 1.1), rng.uniform(-0.04, 0.04)
    noise = rng.standard_normal(brightness.shape, dtype=np.float32) * np.float32(0.025)
    return np.clip((brightness * gain + offset + noise) * 255, 0, 255).astype(np.uint8)

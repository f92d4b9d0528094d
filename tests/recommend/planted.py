"""Ratings of known structure."""

import numpy as np
import pandas as pd

NOISE = 0.1


def planted(
    rng: np.random.Generator, *, users: int, items: int, ratings: int, rank: int = 3, positive: bool = False
) -> pd.DataFrame:
    """Distinct pairs whose ratings are of low rank, plus noise."""
    x, y = rng.normal(size=(users, rank)), rng.normal(size=(items, rank))
    if positive:
        x, y = np.abs(x), np.abs(y)
    pairs = rng.permutation(users * items)[:ratings]
    user, item = pairs // items, pairs % items
    rating = (x[user] * y[item]).sum(1) + NOISE * rng.normal(size=ratings)
    return pd.DataFrame({"user": user, "item": item, "rating": rating.astype(np.float32)})

"""Synthetic ratings as a Parquet data set: factors of a low rank plus noise, drawn in parallel by Spark.

Legend: U users, I items, R factors of each.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from insitu.data.layout import file_count
from insitu.data.publish import publishing
from insitu.errors import UserError

_SCHEMA = "user int, item int, rating float, timestamp timestamp"
_ROW_BYTES = 16
_BLOCK_USERS = 1000
_MANY = 0.25  # who rated more than this share of the items gets them by their keys, not by trying
_YEAR = (int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()), 366 * 24 * 3600)


def write_ratings(
    spark: SparkSession,
    output: str,
    *,
    ratings: int,
    users: int,
    items: int,
    rank: int,
    noise: float,
    skew: float = 0,
    seed: int = 17,
) -> dict[str, Any]:
    """Write ratings that a factorisation of a known rank explains up to a known noise.

    A rating is the product of its user's and its item's R factors, which has mean 0 and variance 1 over all
    pairs, plus normal noise. Columns: `user` int 0..U-1, `item` int 0..I-1, `rating` float, `timestamp`, drawn
    from the year 2024. No pair of user and item occurs twice.

    Args:
        output: a directory that does not exist, on any file system that Spark knows.
        ratings: number of rows.
        users, items, rank: U, I and R.
        noise: standard deviation; no factorisation has a lower expected RMSE on other ratings.
        skew: the n-th most active user and, before the pairs become distinct, the n-th most popular item have a
            share of the ratings that falls with n to this power; who they are is drawn.
        seed: same seed, same ratings, however Spark divides the work.

    Returns:
        `output`, `rows`, `users`, `items` and `rank`.

    Raises:
        UserError: `output` exists, or a number is out of range.
    """
    for option, value in (("--ratings", ratings), ("--users", users), ("--items", items), ("--rank", rank)):
        if not 0 < value < 2**31:
            raise UserError(option, f"{value} is out of range", f"give 1 to {2**31 - 1}")
    for option, number in (("--noise", noise), ("--skew", skew), ("--seed", seed)):
        if not 0 <= number < float("inf"):
            raise UserError(option, f"{number} is out of range", "give 0 or more")
    if ratings > users * items:
        problem = f"{ratings} is more than the {users * items} pairs of {users} users and {items} items"
        raise UserError("--ratings", problem, "lower it, or raise --users or --items")
    draw = _Drawer(items=items, rank=rank, noise=noise, skew=skew, seed=seed)
    sizes = spark.sparkContext.broadcast(_sizes(ratings, users=users, items=items, skew=skew, seed=seed))

    def blocks(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            for block in batch["id"]:
                first = int(block) * _BLOCK_USERS
                yield draw(first, sizes.value[first : first + _BLOCK_USERS])

    numbers = spark.range(0, -(-users // _BLOCK_USERS), 1, file_count(ratings * _ROW_BYTES))
    with publishing(spark, "OUT", output) as partial:
        numbers.mapInPandas(blocks, _SCHEMA).write.parquet(partial)
    return {"output": output, "rows": ratings, "users": users, "items": items, "rank": rank}


def _sizes(ratings: int, *, users: int, items: int, skew: float, seed: int) -> np.ndarray:
    """Ratings of each user, int64 [U]; they add up to `ratings`, and none is more than I."""
    shares = _zipf(users, skew)
    sizes = np.minimum((ratings * shares).astype(np.int64), items)
    while missing := ratings - int(sizes.sum()):
        sizes[np.flatnonzero(sizes < items)[:missing]] += 1
    return np.random.default_rng([seed, 1]).permutation(sizes)


def _zipf(count: int, skew: float) -> np.ndarray:
    """Shares that fall with the rank, float64 [count]."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -skew
    return weights / weights.sum()


class _Drawer:
    """Draws the ratings of a block of users; sent to the executors, the items' factors are made there."""

    def __init__(self, *, items: int, rank: int, noise: float, skew: float, seed: int) -> None:
        self._items, self._rank, self._noise, self._skew, self._seed = items, rank, noise, skew, seed
        self._made: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, first: int, sizes: np.ndarray) -> pd.DataFrame:
        """The ratings of users `first`, `first` + 1, …, as many of each as `sizes` (int64) says."""
        shares, item_factors = self._item_side()
        random = np.random.default_rng([self._seed, 3, first])
        user_factors = self._factors(random, len(sizes))
        users, items = self._pairs(random, sizes, shares)
        signal = np.einsum("nr,nr->n", user_factors[users], item_factors[items])
        seconds = _YEAR[0] + random.integers(0, _YEAR[1], len(users))
        return pd.DataFrame(
            {
                "user": (first + users).astype(np.int32),
                "item": items.astype(np.int32),
                "rating": (signal + self._noise * random.standard_normal(len(users))).astype(np.float32),
                "timestamp": pd.to_datetime(seconds, unit="s", utc=True),
            }
        )

    def _item_side(self) -> tuple[np.ndarray, np.ndarray]:
        """Each item's share of the ratings, float64 [I], and its factors, float64 [I, R]."""
        if self._made is None:
            random = np.random.default_rng([self._seed, 2])
            shares = random.permutation(_zipf(self._items, self._skew))
            self._made = shares, self._factors(random, self._items)
        return self._made

    def _factors(self, random: np.random.Generator, count: int) -> np.ndarray:
        return random.standard_normal((count, self._rank)) / self._rank**0.25

    def _pairs(
        self, random: np.random.Generator, sizes: np.ndarray, shares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Users, counted from the block's first, and items, int64 [n] each, no pair twice."""
        ends = shares.cumsum()
        pairs = [np.empty(0, np.int64)]
        for user in np.flatnonzero(sizes > _MANY * self._items):
            keys = random.exponential(size=self._items) / shares  # the smallest are a draw without replacement
            pairs.append(user * self._items + np.argpartition(keys, sizes[user] - 1)[: sizes[user]])
        wanted = np.where(sizes > _MANY * self._items, 0, sizes)
        tried = np.empty(0, np.int64)
        while (missing := wanted - np.bincount(tried // self._items, minlength=len(sizes))).any():
            users = np.repeat(np.arange(len(sizes)), missing)
            items = np.minimum(np.searchsorted(ends, random.random(len(users))), self._items - 1)
            tried = np.union1d(tried, users * self._items + items)
        every = np.concatenate([*pairs, tried])
        return every // self._items, every % self._items

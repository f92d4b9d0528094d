"""Ratings whose factors are known, and a model of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

import insitu
from insitu.data.ratings import write_ratings

NOISE = 0.3
BLOCKS = ("model.user_blocks=2", "model.item_blocks=2")
EXPLICIT = ("model.rank=4", "model.iterations=3", "model.reg=0.003", *BLOCKS)


@dataclass(frozen=True)
class Planted:
    """The ratings, the model directory, and the summary of the training."""

    data: Path
    model: Path
    summary: dict[str, Any]


def train(spark: SparkSession, data: Path, output: Path, *settings: str, recipe: str = "als") -> dict[str, Any]:
    """Train one of conf/recipes with `--set` of each of `settings`."""
    path = Path(__file__).parent.parent.parent / f"conf/recipes/{recipe}.yaml"
    return insitu.train_als(spark, insitu.load_als_recipe(path, settings), data=str(data), output=str(output))


def plant(spark: SparkSession, place: Path) -> Planted:
    """20 000 ratings of 400 users and 150 items, rank 3, and a model trained on nine tenths of them."""
    summary = write_ratings(
        spark, str(place / "ratings"), ratings=20_000, users=400, items=150, rank=3, noise=NOISE, skew=0.3, seed=5
    )
    assert summary["rows"] == 20_000
    trained = train(spark, place / "ratings", place / "model", *EXPLICIT, "evaluation.relevant_from=1")
    return Planted(place / "ratings", place / "model", trained)


def read(path: Path) -> Any:
    """A YAML or JSON file."""
    return yaml.safe_load(path.read_text())

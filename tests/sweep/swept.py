"""What tests of sweeps share: a recipe file with a dataset, a small grid, and the table that a sweep leaves."""

import csv
from pathlib import Path
from typing import Any

import yaml

from training.digits_rows import digit_rows, recipe_tree, write_rows

BATCH = "training.global_batch=32"


def recipe_and_data(directory: Path) -> dict[str, Any]:
    """Trains ten epochs of two steps."""
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree(epochs=10, checkpoint={"every_steps": 1})))
    return {"recipe": str(directory / "recipe.yaml"), "data": write_rows(directory / "data", digit_rows())}


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "sweep.csv").open(newline="") as source:
        return list(csv.DictReader(source))

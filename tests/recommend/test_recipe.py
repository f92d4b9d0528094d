"""The ALS recipe: what its mistakes are told."""

from pathlib import Path

import pytest

from insitu.errors import UserError
from insitu.recommend.recipe import load_als

RECIPE = Path(__file__).parent.parent.parent / "conf/recipes/als.yaml"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.ranks=3", r"model\.ranks: unknown key; did you mean rank\?"),
        ("data.holdout.share=0.2", r"data\.holdout\.share: unknown key; the keys here are by, fraction"),
        ("model.rank=0", r"model\.rank: input should be greater than 0, got 0"),
        ("data.duplicates=last", r"data\.duplicates: last is by time, and data\.time_column is null"),
        ("data.holdout.by=time", r"data\.holdout: by is time, and data\.time_column is null"),
        ("data.rating_column=null", r"model: explicit ratings need data\.rating_column"),
        (
            "model={nonnegative: true, solver: cg}",
            r"model\.solver: cg cannot keep factors from being negative: take auto",
        ),
        ("training.epochs=3", r"training: unknown key; the keys here are data, evaluation, model, seed"),
    ],
)
def test_mistake_is_told_by_its_key(setting: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_als(RECIPE, [setting])


def test_written_recipe_is_read_again(tmp_path: Path) -> None:
    recipe = load_als(RECIPE, ["model.rank=7", "data.time_column=when", "data.holdout.by=time"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_als(tmp_path / "recipe.yaml") == recipe

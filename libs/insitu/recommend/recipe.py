"""The sections and keys of an ALS recipe, with their types, bounds and defaults."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from insitu.recipe import read
from insitu.recipe.schema import Fraction, NotNegative, PositiveInt, Section


class Holdout(Section):
    """Which ratings are kept from training, to measure on."""

    by: Literal["random", "time"] = "random"
    """random draws each rating by the seed, time takes the newest ratings of all."""
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Data(Section):
    """Which columns are read, and which rows are ratings."""

    user_column: str | None = None
    """null takes the column that is called user, userId or user_id, in upper or lower case."""
    item_column: str | None = None
    """null takes the column that is called item, movie or product, in the same spellings."""
    rating_column: str | None = "rating"
    """null counts every row as a rating of 1."""
    time_column: str | None = None
    """A timestamp, a date or a number."""
    duplicates: Literal["error", "last", "mean", "sum", "max"] = "error"
    """What becomes of several ratings of an item by a user; last is the newest."""
    holdout: Holdout = Holdout()
    max_bad_fraction: Fraction = 0.01
    """The run stops when more than this share of the rows cannot be used."""

    @field_validator("duplicates")
    @classmethod
    def _last_by_time(cls, policy: str, info: ValidationInfo) -> str:
        if policy == "last" and info.data.get("time_column", "wrong itself") is None:
            raise ValueError("last is by time, and data.time_column is null: name the column")
        return policy

    @field_validator("holdout")
    @classmethod
    def _newest_by_time(cls, holdout: Holdout, info: ValidationInfo) -> Holdout:
        if holdout.by == "time" and info.data.get("time_column", "wrong itself") is None:
            raise ValueError("by is time, and data.time_column is null: name the column")
        return holdout


class Model(Section):
    """The factorisation; the meanings are those of Spark MLlib's ALS."""

    rank: PositiveInt = 10
    """Factors of each user and item."""
    iterations: PositiveInt = 10
    reg: NotNegative = 0.1
    """The regularisation of a user or item is this times its number of ratings (ALS-WR)."""
    implicit: bool = False
    """Ratings are strengths of an interest (Hu, Koren, Volinsky 2008), not marks."""
    alpha: NotNegative = 1.0
    """Implicit only: a rating r has the confidence 1 + alpha r."""
    nonnegative: bool = False
    """Factors are 0 or more."""
    solver: Literal["auto", "cholesky", "cg", "mllib"] = "auto"
    """How the normal equations are solved; mllib trains with Spark's own ALS."""
    user_blocks: PositiveInt | None = None
    """Parts that the users are divided into; null leaves it to the estimator."""
    item_blocks: PositiveInt | None = None
    checkpoint_interval: PositiveInt = 10
    """Iterations from one checkpoint of the factors to the next."""

    @field_validator("solver")
    @classmethod
    def _keeps_signs(cls, solver: str, info: ValidationInfo) -> str:
        if solver == "cg" and info.data.get("nonnegative"):
            raise ValueError("cg cannot keep factors from being negative: take auto, cholesky or mllib")
        return solver


class Evaluation(Section):
    """How the lists of recommendations are measured on the held-out ratings."""

    k: PositiveInt = 10
    """Length of the lists."""
    relevant_from: float | None = None
    """A held-out item is a hit from this rating on; null: every one if the ratings are implicit, else no lists."""


class AlsRecipe(Section):
    data: Data = Data()
    model: Model = Model()
    evaluation: Evaluation = Evaluation()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 17

    @field_validator("model")
    @classmethod
    def _has_ratings(cls, model: Model, info: ValidationInfo) -> Model:
        if not model.implicit and "data" in info.data and info.data["data"].rating_column is None:
            raise ValueError("explicit ratings need data.rating_column, which is null: name it, or set model.implicit")
        return model

    @property
    def ranks(self) -> bool:
        """Whether lists of recommendations are measured."""
        return self.model.implicit or self.evaluation.relevant_from is not None


def load_als(path: str | Path, overrides: Sequence[str] = ()) -> AlsRecipe:
    """Read and validate an ALS recipe, as `insitu.recipe.read` does."""
    return read(path, overrides, schema=AlsRecipe)

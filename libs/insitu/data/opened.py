"""A dataset and what joins it, as their footers describe them."""

from dataclasses import dataclass

from insitu.data.additions import open_addition
from insitu.data.dataset import Dataset, open_dataset
from insitu.data.selection import Selection, select
from insitu.errors import UserError
from insitu.recipe import Recipe


@dataclass(frozen=True)
class Opened:
    """A dataset before any of its rows is read.

    Attributes:
        dataset: its footers.
        additions: those of what joins its training split.
        selection: the columns that are read.
        class_names: that the recipe or the dataset names; empty where neither does.
    """

    dataset: Dataset
    additions: tuple[Dataset, ...]
    selection: Selection
    class_names: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self._parts)

    @property
    def row_groups(self) -> int:
        return sum(len(part.row_groups) for part in self._parts)

    @property
    def row_bytes(self) -> float:
        """Mean bytes of a row that waits in a worker's memory."""
        stored = sum(part.row_bytes * part.rows for part in self._parts) / self.rows
        return max(1, stored, self.selection.input.held_bytes)

    def window_rows(self, shuffle_mib: int, local_batch: int) -> int:
        """How many rows a worker shuffles together: those that fill so many MiB, and a batch at least."""
        return max(local_batch, int(shuffle_mib * 2**20 / self.row_bytes))

    @property
    def _parts(self) -> tuple[Dataset, ...]:
        return (self.dataset, *self.additions)


def open_data(recipe: Recipe, uri: str) -> Opened:
    """Read the footers and find the columns.

    Raises:
        UserError: a dataset that cannot be read, no usable column, classes in two orders, or additions of another form.
    """
    dataset = open_dataset(uri)
    selection = select(dataset, recipe)
    additions = tuple(open_addition(each, dataset, selection) for each in recipe.data.additions)
    return Opened(dataset, additions, selection, _class_names(recipe, dataset, selection.label.name))


def _class_names(recipe: Recipe, dataset: Dataset, label: str) -> tuple[str, ...]:
    """The recipe's or else the dataset's class names; empty where neither has any."""
    ours, theirs = recipe.task.classes or (), tuple(dataset.class_names(label) or ())
    for place, name in enumerate(ours):
        if name in theirs and theirs.index(name) != place:
            raise UserError(
                "task.classes",
                f"{name!r} is class {place} here and class {theirs.index(name)} in the dataset's metadata",
                "take the dataset's own order with --set task.classes=null",
            )
    return ours or theirs

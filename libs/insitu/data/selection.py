"""Which columns of a dataset a recipe reads, and how it splits the rows."""

from dataclasses import dataclass

from insitu.data import columns
from insitu.data.columns import LabelColumn
from insitu.data.dataset import Dataset
from insitu.data.inputs import ImageInput, Input, TensorInput
from insitu.data.scan import SplitRule
from insitu.errors import UserError
from insitu.recipe import Recipe
from insitu.tasks import TASKS


@dataclass(frozen=True)
class Selection:
    """What is read of a row.

    Attributes:
        input, label: for the network, and what it should say.
        id_column: names a row; None where the dataset has none.
        split: which rows train and which validate.
    """

    input: Input
    label: LabelColumn
    id_column: str | None
    split: SplitRule


def select(dataset: Dataset, recipe: Recipe) -> Selection:
    """Find the columns that a recipe names or leaves open.

    Raises:
        UserError: no usable column, or labels that are not the task's.
    """
    task, data = TASKS[recipe.task.kind], recipe.data
    label = columns.find_label(dataset.schema, name=data.label_column)
    if label.form != task.label_form:
        raise UserError(
            "task.kind",
            f"{task.kind} learns from {task.label_form} labels, column {label.name} is {label.form}",
            "choose the task that the labels are for, or another data.label_column",
        )
    stored, folders = set(dataset.schema.names), dataset.partition_columns
    return Selection(
        input=_find_input(dataset, recipe, label.name),
        label=label,
        id_column=_optional_column(dataset, "data.id_column", data.id_column, "id", known=stored),
        split=SplitRule(
            _optional_column(dataset, "data.split_column", data.split_column, "split", known=stored | folders),
            data.holdout,
            recipe.training.seed,
        ),
    )


def _find_input(dataset: Dataset, recipe: Recipe, label: str) -> Input:
    data = recipe.data
    if data.tensor_shape:
        tensor = columns.find_tensor(dataset.schema, shape=data.tensor_shape, name=data.tensor_column, exclude=[label])
        return TensorInput(tensor, data.tensor_shape)
    assert data.size and data.channels
    image = columns.find_image(dataset.schema, name=data.image_column, exclude=[label])
    return ImageInput(image, data.size, data.channels)


def _optional_column(dataset: Dataset, setting: str, name: str | None, default: str, *, known: set[str]) -> str | None:
    """A column that the recipe names, else the default one where the dataset has it."""
    if name is not None and name not in known:
        raise columns.missing_column(setting, name, dataset.schema)
    return name or (default if default in known else None)

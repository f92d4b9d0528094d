"""The columns of a DataFrame that a model reads."""

from typing import TYPE_CHECKING

import pyarrow as pa

from insitu import artifact
from insitu.data.columns import find_image, find_tensor
from insitu.data.inputs import ImageInput, Input, TensorInput
from insitu.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def check_no_column(df: "DataFrame", *names: str) -> None:
    """Raise `UserError` where a DataFrame has a column of such a name, in any case, as Spark compares them."""
    taken = {column.lower() for column in df.columns}
    for name in names:
        if name in taken:
            raise UserError("df", f"it has a column {name} already", "rename or drop that column")


def find_input(
    df: "DataFrame", preprocessing: artifact.Preprocessing, image_column: str | None, tensor_column: str | None
) -> Input:
    """What a model with this preprocessing reads of a DataFrame.

    Args:
        image_column: None for the only column that can be an image, or, among several, the one called `image`.
        tensor_column: likewise, of the columns that can hold tensors, for a model that reads these.

    Raises:
        UserError: no such column, several, or one of another type.
    """
    schema = arrow_schema(df)
    try:
        if isinstance(preprocessing, artifact.TensorPreprocessing):
            _refuse("image_column", image_column, "tensors")
            return TensorInput(find_tensor(schema, shape=preprocessing.shape, name=tensor_column), preprocessing.shape)
        _refuse("tensor_column", tensor_column, "images")
        return ImageInput(find_image(schema, name=image_column), preprocessing.size, preprocessing.channels)
    except UserError as error:
        raise UserError(error.setting.removeprefix("data."), *error.args[1:]) from None


def _refuse(argument: str, name: str | None, read: str) -> None:
    if name is not None:
        raise UserError(argument, f"{name}, and the model reads {read}", "leave it out")


def arrow_schema(df: "DataFrame") -> pa.Schema:
    """The columns of types that Arrow has, as those of images are."""
    from pyspark.errors import PySparkTypeError
    from pyspark.sql.pandas.types import to_arrow_type

    fields = []
    for field in df.schema:
        try:
            fields.append((field.name, to_arrow_type(field.dataType)))
        except PySparkTypeError:
            continue
    return pa.schema(fields)

"""Column conventions: recognising the image, tensor and label columns of a Parquet schema by their shape.

Legend: B rows of a batch, K classes, H, W height and width.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from insitu.data.decode import BadImage, decode, load_array
from insitu.data.tensors import BadTensor, TensorForm, check_depth, tensor_form
from insitu.errors import UserError

ImageForm = Literal["encoded", "binary_file", "spark_image", "huggingface", "petastorm"]
LabelForm = Literal["integer", "multi_hot", "float", "mask"]

PETASTORM_KEY = b"dataset-toolkit.unischema.v1"
_BINARY_FILE = {"path", "content", "length", "modificationTime"}
_SPARK_IMAGE = {"height", "width", "nChannels", "mode", "data"}
_HUGGINGFACE = {"bytes", "path"}


class BadLabel(ValueError):
    """A label value that cannot be read; the message is the quarantine's reason."""


@dataclass(frozen=True)
class ImageColumn:
    """The recognised image column and its convention."""

    name: str
    form: ImageForm

    def payloads(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """The rows' images as bytes that `insitu.data.decode.decode` takes, None where null."""
        column = batch.column(batch.schema.get_field_index(self.name))
        if self.form == "huggingface":
            return pc.struct_field(column, "bytes").to_pylist()
        if self.form == "spark_image":
            return [_npy_from_spark_image(row) for row in column.to_pylist()]
        return column.to_pylist()


@dataclass(frozen=True)
class TensorColumn:
    """The recognised tensor column and what holds its values; `insitu.data.tensors.read_tensors` reads them."""

    name: str
    form: TensorForm


@dataclass(frozen=True)
class LabelColumn:
    """The recognised label column and its form.

    `read` gives one value a row: integer → int64 [], multi_hot → float32 [K], float → float32 [],
    mask → uint8 [H, W].
    """

    name: str
    form: LabelForm

    def read(self, batch: pa.RecordBatch) -> list["np.ndarray | BadLabel"]:
        column = batch.column(batch.schema.get_field_index(self.name))
        if self.form == "multi_hot" and _is_list(column.type):
            table = _multi_hot_table(column)
            if table is not None:
                return list(table)
        read = _LABEL_READERS[self.form]
        return [_try(read, value) for value in column.to_pylist()]


def find_image(schema: pa.Schema, *, name: str | None, exclude: Sequence[str] = ()) -> ImageColumn:
    """The image column of a schema.

    Args:
        schema: the Parquet schema, with petastorm's metadata where there is some.
        name: `data.image_column`; None looks for the only column that can be an image, or, among
            several, for the one called `image`.
        exclude: columns that are known to be something else.

    Raises:
        UserError: no column, several, or one of another type.
    """
    forms: dict[str, ImageForm] = {
        field.name: form for field in schema if field.name not in exclude and (form := _image_form(field, schema))
    }
    mend = "images are binary, Spark's binaryFile or image, Hugging Face's struct, or petastorm's codecs"
    column = _choose("image", schema, list(forms), name=name, mend=mend)
    return ImageColumn(column, forms[column])


def find_tensor(
    schema: pa.Schema, *, shape: tuple[int, ...], name: str | None, exclude: Sequence[str] = ()
) -> TensorColumn:
    """The tensor column of a schema.

    Args:
        schema: the Parquet schema.
        shape: `data.tensor_shape`.
        name: `data.tensor_column`; None looks for the only column that can hold tensors, or, among several, for the
            one called `tensor`.
        exclude: columns that are known to be something else.

    Raises:
        UserError: no column, several, or one of another type.
    """
    forms: dict[str, TensorForm] = {
        field.name: form for field in schema if field.name not in exclude and (form := tensor_form(field.type))
    }
    mend = "tensors are lists of floats or integers, or NumPy arrays in binary"
    column = _choose("tensor", schema, list(forms), name=name, mend=mend)
    try:
        check_depth(schema.field(column).type, shape)
    except BadTensor as error:
        mend = "flatten the lists, or nest them as data.tensor_shape is"
        raise UserError("data.tensor_column", f"{column} is {schema.field(column).type}: {error}", mend) from None
    return TensorColumn(column, forms[column])


def find_label(schema: pa.Schema, *, name: str | None) -> LabelColumn:
    """The label column of a schema; by default the one called `label` or `labels`.

    Raises:
        UserError: no such column, or of a type that no label form has.
    """
    if name is None:
        name = next((column for column in ("label", "labels") if column in schema.names), None)
        if name is None:
            raise UserError(
                "data.label_column", f"no column label or labels among {_listed(schema)}", "name the label column"
            )
    if name not in schema.names:
        raise missing_column("data.label_column", name, schema)
    kind = schema.field(name).type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return LabelColumn(name, "integer")
    if pa.types.is_floating(kind):
        return LabelColumn(name, "float")
    if _is_list(kind) and _is_number(kind.value_type):
        return LabelColumn(name, "multi_hot")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = b"NdarrayCodec" in (schema.metadata or {}).get(PETASTORM_KEY, b"")
        return LabelColumn(name, "multi_hot" if array else "mask")
    raise UserError(
        "data.label_column",
        f"{name} is {kind}, expected an integer, a list of 0 and 1, a float or an encoded mask",
        "turn it into one of these, for example with jobs/ingest.py",
    )


def missing_column(setting: str, name: str, schema: pa.Schema) -> UserError:
    """The error for a named column that the dataset lacks."""
    near = get_close_matches(name, schema.names, n=1)
    mend = f"did you mean {near[0]}?" if near else f"the columns are {_listed(schema)}"
    return UserError(setting, f"the dataset has no column {name}", mend)


def _choose(what: str, schema: pa.Schema, possible: Sequence[str], *, name: str | None, mend: str) -> str:
    """The column of images or tensors, `possible` being those that may be."""
    setting = f"data.{what}_column"
    if name is not None and name not in schema.names:
        raise missing_column(setting, name, schema)
    if name is not None and name not in possible:
        raise UserError(setting, f"{name} is {schema.field(name).type}, no {what}", mend)
    if not possible:
        raise UserError(setting, f"no {what} in columns {_listed(schema)}", mend)
    chosen = name or (what if what in possible else None)
    if chosen is None and len(possible) > 1:
        raise UserError(setting, f"several columns may be {what}s: {', '.join(possible)}", "set it to one of them")
    return chosen or possible[0]


def _image_form(field: pa.Field, schema: pa.Schema) -> ImageForm | None:
    if pa.types.is_struct(field.type):
        members = {field.type.field(i).name for i in range(field.type.num_fields)}
        if members >= _SPARK_IMAGE:
            return "spark_image"
        return "huggingface" if members >= _HUGGINGFACE else None
    if not (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
        return None
    if field.name == "content" and set(schema.names) >= _BINARY_FILE:
        return "binary_file"
    return "petastorm" if schema.metadata and PETASTORM_KEY in schema.metadata else "encoded"


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _npy_from_spark_image(row: dict | None) -> bytes | None:
    """Spark's image struct (row-wise BGR or BGRA bytes) as `.npy` bytes in RGB or RGBA."""
    if row is None or not row["data"]:
        return None
    shape = (row["height"], row["width"], row["nChannels"])
    if any(side is None or side < 0 for side in shape) or len(row["data"]) != math.prod(shape):
        return row["data"]  # raw pixels, which `decode` refuses
    pixels = np.frombuffer(row["data"], np.uint8).reshape(shape)
    if shape[2] >= 3:
        pixels = pixels[:, :, [2, 1, 0, *range(3, shape[2])]]
    out = io.BytesIO()
    np.save(out, pixels)
    return out.getvalue()


def _try(read: Callable[[object], np.ndarray], value: object) -> "np.ndarray | BadLabel":
    try:
        return read(value)
    except BadLabel as error:
        return error


def _number(value: object, dtype: type[np.generic]) -> np.ndarray:
    if value is None:
        raise BadLabel("label is null")
    return np.asarray(value, dtype)


def _integer(value: object) -> np.ndarray:
    try:
        return _number(value, np.int64)
    except OverflowError:
        raise BadLabel(f"label {value} is too large") from None


def _float(value: object) -> np.ndarray:
    number = _number(value, np.float32)
    if not np.isfinite(number):
        raise BadLabel(f"label is {number}")
    return number


def _multi_hot(value: object) -> np.ndarray:
    if isinstance(value, bytes):
        value = _array(value)
    if value is None or any(entry is None for entry in value):  # type: ignore[attr-defined]
        raise BadLabel("label is null")
    array = np.asarray(value, np.float32)
    if not np.isin(array, (0, 1)).all():
        raise BadLabel(f"label {value} is no list of 0 and 1")
    return array


def _multi_hot_table(column: pa.Array) -> np.ndarray | None:
    """float32 [B, K] of lists that are all good and equally long, at once; None where a row has to be looked at."""
    flat = column.flatten()
    if column.null_count or flat.null_count or not len(column) or len(pc.unique(pc.list_value_length(column))) > 1:
        return None
    table = flat.cast(pa.float32(), safe=False).to_numpy().reshape(len(column), -1)
    return table if np.isin(table, (0, 1)).all() else None


def _array(payload: bytes) -> np.ndarray:
    try:
        array = load_array(payload)
    except BadImage as error:
        raise BadLabel(f"label: {error}") from None
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise BadLabel(f"label: array of {array.dtype} {list(array.shape)}, expected numbers [K]")
    return array


def _mask(value: object) -> np.ndarray:
    try:
        return decode(value, size=None, channels=1)[:, :, 0]  # type: ignore[arg-type]
    except BadImage as error:
        raise BadLabel(f"mask: {error}") from None


_LABEL_READERS: dict[LabelForm, Callable[[object], np.ndarray]] = {
    "integer": _integer,
    "multi_hot": _multi_hot,
    "float": _float,
    "mask": _mask,
}


def _listed(schema: pa.Schema) -> str:
    return ", ".join(schema.names)

"""Labels for a folder of images: from a CSV file, or from the folders themselves.

The rules for a CSV file, whose first line names its columns:

- Several label columns: one class each, named like the column, every value 0 or 1. Multi-label.
- One label column in which a value holds "|" or is "No Finding": class names separated by "|", as
  in ChestX-ray14's `Finding Labels`; "No Finding" is an image without any. Multi-label.
- One label column otherwise: each different value is a class. One class an image.

Classes are sorted by name, by value where all are integers, so that labels 0..K-1 stay as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from insitu.errors import UserError

NO_FINDING = frozenset({"No Finding", "No Findings"})
MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Labels:
    """What is known about images by file.

    Attributes:
        table: `file` string (each once), `group` string or null, and the label column.
        column: `label` (int, 0..K-1) or `labels` (array<int>, K of 0/1); null where there is none.
        classes: the K class names.
    """

    table: DataFrame
    column: str
    classes: tuple[str, ...]


def csv_labels(
    spark: SparkSession,
    path: str,
    *,
    image_column: str | None,
    label_columns: Sequence[str],
    group_column: str | None,
) -> Labels:
    """Read a CSV file of labels by the rules above.

    Args:
        path: the CSV file, on any file system that Spark knows.
        image_column: holds file names or relative paths; None takes the first column.
        label_columns: none takes the second column.
        group_column: becomes `group`; None leaves it null.

    Raises:
        UserError: no such file or column, a file named twice with different labels, a value other
            than 0 or 1 in several label columns, or a label column with over 10 000 values.
    """
    table = _read(spark, path)
    image_column = image_column or table.columns[0]
    label_columns = list(label_columns) or [table.columns[1]]
    wanted = [("--image-column", image_column), *(("--label-column", name) for name in label_columns)]
    if group_column is not None:
        wanted.append(("--group-column", group_column))
    for option, name in wanted:
        _check_column(option, name, table.columns)
    column, classes, label = _flags(table, label_columns) if len(label_columns) > 1 else _names(table, label_columns[0])
    group = _no_group() if group_column is None else _text(group_column).alias("group")
    labelled = table.select(_text(image_column).alias("file"), group, label.alias(column))
    labelled = labelled.filter(F.col("file").isNotNull()).distinct()
    _check_unique(labelled)
    return Labels(labelled, column, classes)


def folder_labels(files: DataFrame) -> Labels:
    """Take the first folder of each `id` (relative path) as the class; no folder, no label.

    Raises:
        UserError: no file is in a folder, or there are over 10 000 folders.
    """
    folder = F.when(F.col("id").contains("/"), F.substring_index("id", "/", 1))
    classes = _ordered(_distinct(files, folder, "--data"))
    if not classes:
        raise UserError("--labels", "is missing, and --data holds no folders", "give a CSV file, or a folder a class")
    label = _position(folder, classes)
    return Labels(files.select(F.col("id").alias("file"), _no_group(), label.alias("label")), "label", classes)


def _read(spark: SparkSession, path: str) -> DataFrame:
    try:
        table = spark.read.csv(path, header=True, escape='"', ignoreLeadingWhiteSpace=True)
    except AnalysisException as error:
        raise UserError("--labels", str(error).splitlines()[0], "name a CSV file that exists") from None
    if len(table.columns) < 2:
        mend = "its first line has to name a column of images and one of labels"
        raise UserError("--labels", f"{path} has the columns {table.columns}", mend)
    return table


def _check_column(option: str, name: str, columns: Sequence[str]) -> None:
    if name not in columns:
        near = get_close_matches(name, columns, n=1, cutoff=0) or columns
        raise UserError(option, f"the CSV file has no column {name!r}", f"the nearest is {near[0]!r}")


def _check_unique(table: DataFrame) -> None:
    twice = table.groupBy("file").count().filter("count > 1").first()
    if twice is not None:
        raise UserError("--labels", f"{twice['file']!r} is in two lines that differ", "keep one line for each file")


def _flags(table: DataFrame, names: Sequence[str]) -> tuple[str, tuple[str, ...], Column]:
    flags = {name: _text(name).cast("double") for name in names}
    for name, flag in flags.items():
        wrong = table.filter(~F.coalesce(flag.isin(0.0, 1.0), F.lit(False))).first()
        if wrong is not None:
            problem = f"{name!r} holds {wrong[name]!r}, expected 0 or 1"
            raise UserError("--label-column", problem, "correct or remove that line")
    return "labels", tuple(names), F.array(*(flag.cast("int") for flag in flags.values()))


def _names(table: DataFrame, name: str) -> tuple[str, tuple[str, ...], Column]:
    text = F.nullif(_text(name), F.lit(""))
    values = _distinct(table, text, "--label-column")
    if not any("|" in value or value in NO_FINDING for value in values):
        classes = _ordered(values)
        return "label", classes, _position(text, classes)
    parts = {part.strip() for value in values for part in value.split("|")}
    classes = _ordered(parts - NO_FINDING - {""})
    found = F.transform(F.split(text, r"\|"), F.trim)
    multi_hot = F.transform(_literals(classes), lambda known: F.array_contains(found, known).cast("int"))
    return "labels", classes, F.when(text.isNotNull(), multi_hot)


def _distinct(table: DataFrame, text: Column, option: str) -> list[str]:
    values = table.select(text.alias("value")).dropna().distinct().limit(MAX_CLASSES + 1).collect()
    if len(values) > MAX_CLASSES:
        raise UserError(option, f"gives more than {MAX_CLASSES} classes", "name what holds the class")
    return [row["value"] for row in values]


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    names = sorted(names)
    return tuple(sorted(names, key=int) if all(name.removeprefix("-").isdecimal() for name in names) else names)


def _position(text: Column, classes: Sequence[str]) -> Column:
    return (F.call_function("array_position", _literals(classes), text) - 1).cast("int")


def _literals(classes: Sequence[str]) -> Column:
    return F.array(*map(F.lit, classes))


def _no_group() -> Column:
    return F.lit(None).cast("string").alias("group")


def _text(name: str) -> Column:
    return F.trim(F.col(f"`{name}`"))

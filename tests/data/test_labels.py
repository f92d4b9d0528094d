"""The rules by which a CSV file or folders become labels."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from insitu.data.labels import Labels, csv_labels, folder_labels
from insitu.errors import UserError


def read(spark: SparkSession, folder: Path, text: str, **options: object) -> tuple[Labels, dict]:
    """The labels, and {file: label}, of a CSV file with this text."""
    (folder / "labels.csv").write_text(text)
    arguments: dict = {"image_column": None, "label_columns": (), "group_column": None} | options
    labels = csv_labels(spark, str(folder / "labels.csv"), **arguments)
    return labels, {row["file"]: row[labels.column] for row in labels.table.collect()}


@pytest.mark.parametrize(
    ("text", "column", "classes", "expected"),
    [
        ("f,l\na,dog\nb,cat\nc,dog\nd,\n", "label", ("cat", "dog"), {"a": 1, "b": 0, "c": 1, "d": None}),
        ("f,l\na,10\nb,2\nc,0\n", "label", ("0", "2", "10"), {"a": 2, "b": 1, "c": 0}),
        ("f,l\na,2\nb,1\nc,0\n", "label", ("0", "1", "2"), {"a": 2, "b": 1, "c": 0}),
        ("f,l\na,x|y\nb, y \nc,\n", "labels", ("x", "y"), {"a": [1, 1], "b": [0, 1], "c": None}),
        ("f,l\na,x\nb,No Finding\n", "labels", ("x",), {"a": [1], "b": [0]}),
        ('f,l\n"a, ""1""",x\nb,y\n', "label", ("x", "y"), {'a, "1"': 0, "b": 1}),
    ],
)
def test_one_label_column(
    spark: SparkSession, tmp_path: Path, text: str, column: str, classes: tuple, expected: dict
) -> None:
    labels, by_file = read(spark, tmp_path, text)
    assert (labels.column, labels.classes, by_file) == (column, classes, expected)


def test_several_label_columns_are_one_class_each(spark: SparkSession, tmp_path: Path) -> None:
    text = "Edema,path,v1.0 Mass\n1.0,a,0\n0,b,1\n0,c,0.0\n"
    labels, by_file = read(spark, tmp_path, text, image_column="path", label_columns=["v1.0 Mass", "Edema"])
    assert labels.classes == ("v1.0 Mass", "Edema")
    assert by_file == {"a": [0, 1], "b": [1, 0], "c": [0, 0]}


def test_the_group_column_is_kept_as_text(spark: SparkSession, tmp_path: Path) -> None:
    labels, _ = read(spark, tmp_path, "f,l,Patient ID\na,x,007\nb,y,\n", group_column="Patient ID")
    assert {row["file"]: row["group"] for row in labels.table.collect()} == {"a": "007", "b": None}


def test_a_line_that_stands_twice_counts_once(spark: SparkSession, tmp_path: Path) -> None:
    labels, _ = read(spark, tmp_path, "f,l\na,x\na,x\nb,y\n")
    assert labels.table.count() == 2


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("f,l\na,x\na,y\n", {}, "--labels: 'a' is in two lines that differ"),
        ("f\na\n", {}, r"--labels: .* has the columns \['f'\]"),
        ("", {}, r"--labels: .* has the columns \[\]"),
        (
            "f,Finding\na,x\n",
            {"label_columns": ["Findings"]},
            "--label-column: .* 'Findings'; the nearest is 'Finding'",
        ),
        ("f,l\na,x\n", {"image_column": "g"}, "--image-column: the CSV file has no column 'g'"),
        ("f,l\na,x\n", {"group_column": "patient"}, "--group-column: the CSV file has no column 'patient'"),
        ("f,p,q\na,1,-1\n", {"label_columns": ["p", "q"]}, "--label-column: 'q' holds '-1', expected 0 or 1"),
        ("f,p,q\na,1,\n", {"label_columns": ["p", "q"]}, "--label-column: 'q' holds None, expected 0 or 1"),
    ],
)
def test_mistakes_are_named(spark: SparkSession, tmp_path: Path, text: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(spark, tmp_path, text, **options)


def test_a_column_of_identifiers_is_refused(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insitu.data.labels.MAX_CLASSES", 3)
    with pytest.raises(UserError, match="--label-column: gives more than 3 classes"):
        read(spark, tmp_path, "f,l\n" + "".join(f"{n},{n}\n" for n in range(4)))


def test_the_first_folder_is_the_class(spark: SparkSession) -> None:
    files = spark.createDataFrame([("dog/2/a.png",), ("cat/b.png",), ("c.png",)], "id string")
    labels = folder_labels(files)
    assert labels.classes == ("cat", "dog")
    assert {row["file"]: row["label"] for row in labels.table.collect()} == {
        "dog/2/a.png": 1,
        "cat/b.png": 0,
        "c.png": None,
    }

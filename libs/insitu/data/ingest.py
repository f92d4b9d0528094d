"""A folder of image files and their labels → a Parquet data set that trains.

Every file is read twice and decoded once: first to find the bad ones, which needs no copy of the
data, then to carry the good ones' bytes over.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from insitu.cluster.session import arrow_batches
from insitu.data.image_files import ARROW_ROWS, bad_images, list_files, readable
from insitu.data.labels import Labels, csv_labels, folder_labels
from insitu.data.layout import check_holdout, file_count, shuffled, split_column, split_counts, write_dataset
from insitu.data.publish import publishing
from insitu.errors import UserError

_log = logging.getLogger(__name__)


def ingest(
    spark: SparkSession,
    *,
    data: str,
    output: str,
    labels: str | None = None,
    image_column: str | None = None,
    label_columns: Sequence[str] = (),
    group_column: str | None = None,
    holdout: float = 0.2,
    seed: int = 17,
    max_bad_fraction: float = 0.01,
) -> dict[str, Any]:
    """Write the JPEG, PNG and TIFF files of a folder as Parquet, their bytes untouched.

    Columns: `id` string (path below `data`), `group` string, `image` binary, `label` int or `labels`
    array<int> (class names in the column's metadata), `split` string. Rows are in seeded order.

    A file that cannot be decoded, has no label or lacks its group goes to `output/_quarantine`
    (Parquet: `id`, `path`, `reason`), which readers of `output` do not see.

    Args:
        data: folder or glob on any file system that Spark knows.
        output: a directory that does not exist; it appears whole or not at all.
        labels: CSV file by the rules of `insitu.data.labels`; None takes each first folder as class.
            Its files are paths below `data` if any of them holds a "/", else bare file names.
        image_column, label_columns, group_column: columns of that file, as in `csv_labels`.
        holdout: expected share, in (0, 1), of the groups (without `group_column`, of the files)
            in `validation`.
        seed: of order and split.
        max_bad_fraction: the largest share, in [0, 1), of quarantined files that still lets the data set appear.

    Returns:
        `output`, `rows`, `classes`, `train` and `validation` rows, `quarantined`, `files`,
        `labels_without_file` (lines of the CSV file) and `seconds`.

    Raises:
        UserError: any of these is wrong, too many files are bad, or there is only one class.
    """
    started = time.monotonic()
    check_holdout(holdout)
    if not 0 <= max_bad_fraction < 1:
        raise UserError("--max-bad-fraction", f"{max_bad_fraction} is no share in [0, 1)", "give a share such as 0.01")
    if labels is None and (image_column or label_columns or group_column):
        raise UserError("--labels", "is missing, though columns of it are named", "name the CSV file")
    with publishing(spark, "--output", output) as partial, arrow_batches(spark, ARROW_ROWS):
        files = list_files(spark, data, leave_out=labels)
        if labels is None:
            known = folder_labels(files)
        else:
            known = csv_labels(
                spark, labels, image_column=image_column, label_columns=label_columns, group_column=group_column
            )
        index = _index(files, known, grouped=group_column is not None).cache()
        try:
            bad = _quarantine(files, index, known, f"{partial}/_quarantine")
            quarantined = _check_bad(bad, files=index.count(), max_bad_fraction=max_bad_fraction)
            split = split_column(F.col("group"), holdout=holdout, seed=seed)
            good = index.join(bad, "path", "left_anti").withColumn("split", split)
            counts = _write(files, good, known, partial, seed=seed)
            summary = {"quarantined": quarantined, "files": index.count()}
            summary["labels_without_file"] = known.table.join(index, "file", "left_anti").count()
        finally:
            index.unpersist()
    rows = sum(counts.values())
    seconds = round(time.monotonic() - started, 1)
    return {"output": output, "rows": rows, "classes": list(known.classes), **counts, **summary, "seconds": seconds}


def _index(files: DataFrame, known: Labels, *, grouped: bool) -> DataFrame:
    """`path`, `id`, `length`, `file`, `group` and label of every file; null where it is not known."""
    by_path = not known.table.filter(F.col("file").contains("/")).isEmpty()
    file = F.col("id") if by_path else F.substring_index("id", "/", -1)
    index = files.select("path", "id", "length", file.alias("file")).join(known.table, "file", "left")
    index = index if grouped else index.withColumn("group", F.col("id"))
    twice = index.filter(F.col(known.column).isNotNull()).groupBy("file").count().filter("count > 1").first()
    if twice is not None:
        problem = f"several files are called {twice['file']!r}"
        raise UserError("--labels", problem, "write paths below --data instead of file names")
    return index


def _quarantine(files: DataFrame, index: DataFrame, known: Labels, path: str) -> DataFrame:
    """Write `id`, `path`, `reason` of the files that cannot be used to `path`, and return them."""
    _log.info("%d files, %d classes: decoding every file", index.count(), len(known.classes))
    reason = F.coalesce(
        F.col("reason"),
        F.when(F.col(known.column).isNull(), "no label"),
        F.when(F.col("group").isNull(), "no group"),
    )
    checked = index.join(bad_images(files), "path", "left").withColumn("reason", reason)
    bad = checked.filter(F.col("reason").isNotNull()).select("id", "path", "reason")
    bad.repartition(1).write.parquet(path)
    return files.sparkSession.read.schema(bad.schema).parquet(path)


def _check_bad(bad: DataFrame, *, files: int, max_bad_fraction: float) -> int:
    """The number of bad files.

    Raises:
        UserError: they are too many; it names the most frequent reason and a file.
    """
    reasons = bad.groupBy("reason").agg(F.count("*").alias("files"), F.min("id").alias("id")).orderBy(F.desc("files"))
    count = bad.count()
    worst = reasons.first()
    if worst is not None and count > max_bad_fraction * files:
        problem = f"{count} of {files} files are unusable, {worst['files']} for: {worst['reason']} ({worst['id']})"
        raise UserError("--data", problem, f"mend them, or raise --max-bad-fraction above {max_bad_fraction}")
    return count


def _write(files: DataFrame, good: DataFrame, known: Labels, path: str, *, seed: int) -> dict[str, int]:
    """Write the good files' rows to `path`, and return the rows by split."""
    if good.select(known.column).distinct().limit(2).count() < 2:
        problem = f"every usable image has the same label, of the classes {list(known.classes)}"
        raise UserError("--data", problem, "bring images of two classes or more")
    counts = split_counts(good)
    _log.info("writing the %d good files", sum(counts.values()))
    total_bytes = good.agg(F.sum("length").alias("bytes")).collect()[0]["bytes"]
    rows = readable(files).select("path", F.col("content").alias("image")).join(good, "path")
    rows = rows.select("id", "group", "image", known.column, "split")
    ordered = shuffled(rows, key="id", files=file_count(total_bytes), seed=seed)
    write_dataset(ordered, path, label=known.column, classes=known.classes)
    return counts

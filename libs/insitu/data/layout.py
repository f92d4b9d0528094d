"""How a data set lies on disk: row order, split, file and row-group sizes, class names.

Order and split are hashes of the seed and a row's own values, so they are the same however Spark
partitions the work.
"""

from collections.abc import Sequence
from math import ceil

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from insitu.errors import UserError

FILE_BYTES = 256 << 20
ROW_GROUP_BYTES = 32 << 20
MIN_FILES = 4
_HASH_STEPS = 1_000_000


def file_count(total_bytes: int) -> int:
    """Files for a data set of this size: about 256 MiB each, 4 at least."""
    return max(MIN_FILES, ceil(total_bytes / FILE_BYTES))


def check_holdout(holdout: float) -> None:
    """Refuse a share of validation rows outside (0, 1) with a UserError."""
    if not 0 < holdout < 1:
        raise UserError("--holdout", f"{holdout} is no share between 0 and 1", "give one such as 0.2")


def split_column(group: Column, *, holdout: float, seed: int) -> Column:
    """`train` or `validation`, by the hash of (seed, group): a group is never on both sides.

    Args:
        group: string column, such as the patient.
        holdout: expected share of the groups, in (0, 1), that become validation.
    """
    place = F.pmod(F.xxhash64(F.lit("split"), F.lit(seed), group), F.lit(_HASH_STEPS))
    return F.when(place < round(holdout * _HASH_STEPS), "validation").otherwise("train")


def shuffled(rows: DataFrame, *, key: str, files: int, seed: int) -> DataFrame:
    """The rows dealt to `files` partitions and ordered by the hash of (seed, key)."""
    place = F.xxhash64(F.lit("order"), F.lit(seed), F.col(key))
    return rows.repartition(files, place).sortWithinPartitions(place)


def write_dataset(rows: DataFrame, path: str, *, label: str, classes: Sequence[str]) -> None:
    """Write Parquet, a file a partition, with row groups of about 32 MiB.

    The class names become metadata of the label column, `{"classes": [...]}`, which Spark gives
    back as `df.schema[label].metadata` and stores in the Parquet footer under
    `org.apache.spark.sql.parquet.row.metadata`.

    Args:
        path: a new directory, or one that holds only entries hidden by a leading underscore.
    """
    named = rows.withMetadata(label, {"classes": list(classes)})
    writer = named.write.mode("append").option("parquet.block.size", ROW_GROUP_BYTES)
    # Parquet looks at the size only every 100 rows by default; 100 big images would be gigabytes.
    writer.option("parquet.page.size.row.check.min", 4).parquet(path)


def split_counts(rows: DataFrame) -> dict[str, int]:
    """Rows by split: `{"train": n, "validation": m}`.

    Raises:
        UserError: one of the two has none.
    """
    counts = {row["split"]: row["count"] for row in rows.groupBy("split").count().collect()}
    for split in ("train", "validation"):
        if split not in counts:
            mend = "change --holdout or --seed, or bring more groups (a group is never divided)"
            raise UserError("--holdout", f"the {split} split is left without rows", mend)
    return {"train": counts["train"], "validation": counts["validation"]}

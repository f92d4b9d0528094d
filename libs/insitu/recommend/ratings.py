"""A dataset of ratings → a row for each rating that can be used; the bad rows and the duplicates apart.

From here on the columns are `user` and `item` of the dataset's own types, `rating` float and, where
the recipe names a time, `time`.
"""

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    MapType,
    NumericType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem
from insitu.data.dataset import open_dataset
from insitu.errors import UserError
from insitu.recommend.executors import on_executors
from insitu.recommend.recipe import Data

_CSV = (".csv", ".csv.gz", ".csv.bz2")
_USERS = frozenset({"user", "userid"})
_ITEMS = frozenset({"item", "itemid", "movie", "movieid", "product", "productid"})


@dataclass(frozen=True)
class Table:
    """A stored table: where it is, and its rows; all columns of CSV are strings."""

    uri: str
    rows: DataFrame

    def fingerprint(self) -> str:
        """Hex SHA-256: of a Parquet dataset's footers, of every byte of CSV."""
        if not _is_csv(self.uri):
            return open_dataset(self.uri).fingerprint
        digests = artifact.digests(self.uri, each=on_executors(self.rows.sparkSession))
        return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()

    def user_column(self, setting: str, name: str | None) -> str:
        """The column of users: `name`, or for None the one that is called user, userId or user_id."""
        return self._column(setting, name, _USERS)

    def item_column(self, setting: str, name: str | None) -> str:
        """The column of items: `name`, or for None the one that is called item, movie or product, or by their id."""
        return self._column(setting, name, _ITEMS)

    def type_of(self, setting: str, name: str) -> DataType:
        """The type of a column.

        Raises:
            UserError: there is no such column, or it holds no plain values.
        """
        if name not in self.rows.columns:
            near = get_close_matches(name, self.rows.columns, n=1)
            mend = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(self.rows.columns)}"
            raise UserError(setting, f"{self.uri} has no column {name}", mend)
        found = self.rows.schema[name].dataType
        if isinstance(found, ArrayType | MapType | StructType):
            raise UserError(setting, f"{name} is a column of {found.simpleString()}", "name one of plain values")
        return found

    def like(self, name: str) -> str | None:
        """A column's name if the table has it."""
        return name if name in self.rows.columns else None

    def typed(self, setting: str, name: str, to: DataType) -> Column:
        """A column in another type, null where a value has none.

        Raises:
            UserError: its type has nothing in common with the other.
        """
        column = _tried(name, to.simpleString())
        try:
            self.rows.select(column)
        except AnalysisException:
            stored = self.rows.schema[name].dataType.simpleString()
            raise UserError(setting, f"{name} is {stored}, expected {to.simpleString()}", "convert it") from None
        return column

    def _column(self, setting: str, name: str | None, usual: frozenset[str]) -> str:
        if name is None:
            found = [column for column in self.rows.columns if column.lower().replace("_", "") in usual]
            if len(found) != 1:
                problem = f"is not named, and {len(found)} of the columns {', '.join(self.rows.columns)} can be meant"
                raise UserError(setting, problem, "name the column")
            name = found[0]
        self.type_of(setting, name)
        return name


def open_table(spark: SparkSession, uri: str, *, setting: str) -> Table:
    """A Parquet directory or file; or, where its name ends with `.csv`, `.csv.gz` or `.csv.bz2`, CSV with a header.

    Args:
        uri: qualified, on any file system that Spark reads.
        setting: what named it, for the error.

    Raises:
        UserError: nothing there, no row, or it cannot be read.
    """
    if not _is_csv(uri):
        try:
            open_dataset(uri)
        except UserError as error:
            raise UserError(setting, *error.args[1:]) from None
        return Table(uri, spark.read.parquet(uri))
    file_system, path = open_filesystem(uri)
    if not file_system.exists(path):
        raise UserError(setting, f"{uri} does not exist", "name a CSV file with a header, or a Parquet directory")
    try:
        rows = spark.read.csv(uri, header=True, escape='"')
        empty = rows.isEmpty()
    except PySparkException as error:
        raise UserError(setting, f"{uri} cannot be read ({str(error).splitlines()[0]})", "write it again") from None
    if empty:
        raise UserError(setting, f"{uri} holds no row below its header", "check the job that wrote it")
    return Table(uri, rows)


def resolve(table: Table, data: Data) -> Data:
    """The recipe's section with the columns that it leaves open.

    Raises:
        UserError: a column that is not there, or whose type is no id, rating or time.
    """
    if data.rating_column:
        found = table.type_of("data.rating_column", data.rating_column)
        if not isinstance(found, NumericType | StringType | BooleanType):
            problem = f"{data.rating_column} is a column of {found.simpleString()}"
            raise UserError("data.rating_column", problem, "name one of numbers")
    if data.time_column:
        found = table.type_of("data.time_column", data.time_column)
        if not isinstance(found, NumericType | StringType | DateType | TimestampType | TimestampNTZType):
            problem = f"{data.time_column} is a column of {found.simpleString()}"
            raise UserError("data.time_column", problem, "name one of timestamps, dates or numbers")
    user = table.user_column("data.user_column", data.user_column)
    item = table.item_column("data.item_column", data.item_column)
    return data.model_copy(update={"user_column": user, "item_column": item})


def checked(table: Table, data: Data, *, implicit: bool) -> DataFrame:
    """Every row as `user`, `item`, `rating` float, `time` if the recipe names one, and `reason`.

    `reason` is null where the row can be used, else a few words.

    Args:
        table: the dataset.
        data: with its columns resolved.
        implicit: whether a negative rating is a bad row.
    """
    assert data.user_column and data.item_column
    user, item = F.col(_quoted(data.user_column)), F.col(_quoted(data.item_column))
    types = {field.name: field.dataType for field in table.rows.schema}
    given, rating = F.lit(1.0), F.lit(1.0).cast("float")
    if data.rating_column:
        given, rating = F.col(_quoted(data.rating_column)), _tried(data.rating_column, "float")
    reason = (
        F.when(_is_missing(user, types[data.user_column]), "no user")
        .when(_is_missing(item, types[data.item_column]), "no item")
        .when(given.isNull(), "no rating")
        .when(rating.isNull(), "the rating is no number")
        .when(F.isnan(rating) | (F.abs(rating) == float("inf")), "the rating is not finite")
    )
    if implicit:
        reason = reason.when(rating < 0, "the rating is negative, and the recipe is implicit")
    columns = [user.alias("user"), item.alias("item"), rating.alias("rating")]
    if data.time_column:
        time = _time(data.time_column, types[data.time_column])
        columns.append(time.alias("time"))
        reason = reason.when(_is_missing(time, types[data.time_column]), "no time")
    return table.rows.select(*columns, reason.alias("reason"))


def count_bad(rows: DataFrame, *, max_bad_fraction: float) -> tuple[int, int]:
    """How many rows there are, and how many of them have a `reason`.

    Raises:
        UserError: too many have one, or all.
    """
    counts = {row["reason"]: row["count"] for row in rows.groupBy("reason").count().collect()}
    total, bad = sum(counts.values()), sum(count for reason, count in counts.items() if reason)
    if bad > max_bad_fraction * total:
        reason, count = max(((r, c) for r, c in counts.items() if r), key=lambda entry: (entry[1], entry[0]))
        example = rows.filter(F.col("reason") == reason).select("user", "item", "rating").first()
        assert example is not None
        raise UserError(
            "data.max_bad_fraction",
            f"{bad} of {total} rows cannot be used, more than {max_bad_fraction:g} of them; {count} for: {reason}, "
            f"such as user {example['user']}, item {example['item']}, rating {example['rating']}",
            "mend the rows or the columns, or raise it",
        )
    return total, bad


def merged(ratings: DataFrame, policy: str) -> DataFrame:
    """One rating for each user and item.

    Args:
        ratings: good rows, `user`, `item`, `rating` and perhaps `time`.
        policy: the recipe's `data.duplicates`.

    Raises:
        UserError: there are duplicates and the policy is `error`.
    """
    pairs = ratings.groupBy("user", "item")
    if policy == "error":
        _refuse_duplicates(pairs.count())
        return ratings
    timed = "time" in ratings.columns
    if policy == "last":
        newest = F.max(F.struct("time", "rating")).alias("newest")
        return pairs.agg(newest).select("user", "item", "newest.rating", "newest.time")
    rating = getattr(F, policy)("rating").cast("float").alias("rating")
    return pairs.agg(rating, *([F.max("time").alias("time")] if timed else []))


def _refuse_duplicates(counts: DataFrame) -> None:
    several = counts.filter("count > 1")
    example = F.min(F.struct("user", "item", "count")).alias("example")
    found = several.agg(F.count("*").alias("pairs"), example).first()
    if found is not None and found["pairs"]:
        user, item, count = found["example"]
        raise UserError(
            "data.duplicates",
            f"it is error, and {found['pairs']} pairs of user and item have several ratings, "
            f"such as user {user} and item {item} with {count}",
            "set it to last, mean, sum or max, or mend the data",
        )


def _is_csv(uri: str) -> bool:
    return uri.rstrip("/").lower().endswith(_CSV)


def _quoted(name: str) -> str:
    return "`{}`".format(name.replace("`", "``"))


def _tried(name: str, to: str) -> Column:
    """A column in another type, null where a value has none; an ANSI session's cast would end the job."""
    return F.expr(f"try_cast({_quoted(name)} as {to})")


def _time(name: str, stored: DataType) -> Column:
    """A time that sorts and subtracts: of text, seconds; of a date, its midnight."""
    if isinstance(stored, StringType):
        seconds = F.nanvl(_tried(name, "double"), F.lit(None))
        return F.coalesce(seconds, _tried(name, "timestamp").cast("double"))
    if isinstance(stored, DateType | TimestampNTZType):
        return F.col(_quoted(name)).cast("timestamp")
    return F.col(_quoted(name))


def _is_missing(column: Column, stored: DataType) -> Column:
    return column.isNull() | F.isnan(column) if isinstance(stored, FloatType | DoubleType) else column.isNull()

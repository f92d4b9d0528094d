"""The rows that are planned for BigDL are those that its JVM decodes; the others are known before it trains."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

import insitu
from image_files import ONLY_PILLOWS, damaged
from insitu.data.decode import BadImage, decode
from insitu.errors import UserError
from insitu.recipe import Recipe, parse
from jvm_data import Jvm
from training.digits_rows import digit_rows, recipe_tree, scanned, write_rows

REASONS = [f"BigDL cannot decode it: {reason}" for _, reason in ONLY_PILLOWS.values()]
PLACES = (3, 21, 70)
"""Of the pictures that only Pillow decodes, in two row groups of the training rows and one of the validation rows."""


def recipe(engine: str, *, max_bad_fraction: float) -> Recipe:
    tree = recipe_tree(engine=engine, epochs=1)
    tree["task"]["classes"] = [str(digit) for digit in range(10)]
    tree["data"]["max_bad_fraction"] = max_bad_fraction
    return parse(tree)


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = digit_rows()
    for place, (payload, _) in zip(PLACES, ONLY_PILLOWS.values(), strict=True):
        rows["image"][place] = payload
    return write_rows(tmp_path / "data", rows)


def test_what_java_lacks_is_quarantined(spark: SparkSession, data: str, tmp_path: Path) -> None:
    output = str(tmp_path / "model")
    summary = insitu.train(spark, recipe("bigdl", max_bad_fraction=0.1), data=data, output=output)
    assert (summary["quarantined"], summary["steps"]) == (3, 1)
    quarantine = pq.read_table(f"{output}/quarantine.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in quarantine] == [
        (f"digit-{place}", reason) for place, reason in zip(PLACES, REASONS, strict=True)
    ]


def test_labels_of_refused_rows_do_not_count(spark: SparkSession, data: str) -> None:
    of_bigdl, of_orca = (scanned(spark, recipe(engine, max_bad_fraction=0.1), data) for engine in ("bigdl", "orca"))
    labels = digit_rows()["label"]
    assert of_orca.scan.bad_rows == 0
    assert of_orca.counts.rows - of_bigdl.counts.rows == 2
    taken = Counter(of_orca.counts.by_class) - Counter(of_bigdl.counts.by_class)
    assert taken == {labels[3]: 1, labels[21]: 1}


def test_the_same_limit_holds(spark: SparkSession, data: str, tmp_path: Path) -> None:
    message = r"data\.max_bad_fraction: 3 of 97 rows .* digit-3: BigDL cannot decode it: WebP, which Java cannot decode"
    with pytest.raises(UserError, match=message):
        insitu.train(spark, recipe("bigdl", max_bad_fraction=0.02), data=data, output=str(tmp_path / "model"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=3, phases=[Phase.generate])
@given(payloads=st.lists(damaged(), min_size=81, max_size=81))
def test_planned_rows_are_those_that_both_decode(
    spark: SparkSession, jvm: Jvm, tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]
) -> None:
    rows: dict[str, list[Any]] = digit_rows()
    rows["image"][: len(PLACES)] = [payload for payload, _ in ONLY_PILLOWS.values()]
    rows["image"][len(PLACES) : 60] = payloads[: 60 - len(PLACES)]
    rows["image"][66:90] = payloads[60 - len(PLACES) :][:24]
    folder = tmp_path_factory.mktemp("damaged") / "data"
    prepared = scanned(spark, recipe("bigdl", max_bad_fraction=0.99), write_rows(folder, rows))
    planned = sorted(
        20 * piece.row_group + int(row)
        for pieces in prepared.scan.rows.values()
        for piece in pieces
        for row in piece.offsets
    )
    assert planned == [number for number, payload in enumerate(rows["image"]) if both_decode(jvm, payload)]


def both_decode(jvm: Jvm, payload: bytes) -> bool:
    with suppress(BadImage, IllegalArgumentException):
        decode(payload, size=(32, 32), channels=1)
        jvm.decode(payload, 32, 32, 1)
        return True
    return False

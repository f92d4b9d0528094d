"""Scheduled scoring of a folder: each row once, bad rows apart, mistakes named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession

import insitu
from insitu.cluster.lock import locked
from insitu.errors import UserError
from insitu.scoring.batch import Request, conditions, score_batch
from insitu.scoring.thresholds import ByColumn, Thresholds
from scored_models import CLASSES, IMAGES, decoded, random_model, write_model

Scored = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def expected(small: str) -> np.ndarray:
    """Keras's scores of `IMAGES`."""
    return insitu.load(small).model.predict(decoded(IMAGES), verbose=0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data in"
    folder.mkdir()
    return folder


@pytest.fixture
def scored(spark: SparkSession, small: str, data: Path, tmp_path: Path) -> Scored:
    """Scores what is new in `data`."""

    def run(**changes: Any) -> dict[str, Any]:
        given = {"models": [small], "data": str(data), "output": str(tmp_path / "out")} | changes
        return score_batch(spark, **given)

    return run


def add(folder: Path, name: str, rows: list[int], **columns: Any) -> None:
    """A Parquet file of some of `IMAGES`, called by their places."""
    own = {"id": [f"row {row}" for row in rows], "image": [IMAGES[row] for row in rows]}
    pq.write_table(pa.table(own | columns), folder / name)


def table(spark: SparkSession, tmp_path: Path, name: str) -> list[Row]:
    return spark.read.parquet(str(tmp_path / "out" / name)).orderBy("batch", "id").collect()


def test_what_is_new_is_scored_once(
    spark: SparkSession, data: Path, tmp_path: Path, scored: Scored, expected: np.ndarray
) -> None:
    add(data, "a.parquet", [0, 1, 2])
    add(data, "none.parquet", [])
    first = scored()
    assert (first["rows"], first["files"], first["batches"], first["quarantined"]) == (3, 2, 1, 0)
    nothing = scored()
    assert (nothing["rows"], nothing["files"], nothing["batches"]) == (0, 0, 0)
    add(data, "b.parquet", [3, 4])
    late = data / "site=north"
    late.mkdir()
    add(late, "c.parquet", [5])
    os.utime(late / "c.parquet", (0, 0))
    assert scored()["rows"] == 3
    rows = table(spark, tmp_path, "scores")
    assert [row["id"] for row in rows] == [f"row {n}" for n in range(6)]
    assert [row["batch"] for row in rows] == [0, 0, 0, 1, 1, 1]
    found = [[row["scores"][name] for name in ("0", "1", "2")] for row in rows]
    np.testing.assert_allclose(found, expected[:6], rtol=0, atol=1e-4)
    assert [row["decision"] for row in rows] == [[str(k)] for k in expected[:6].argmax(axis=1)]
    assert rows[0]["source"] == f"file:///{str(data / 'a.parquet')[1:]}"
    assert {row["model"] for row in rows} == {first["models"][0]}
    assert {row["precision"] for row in rows} == {"fp32"}
    record = json.loads((tmp_path / "out/monitoring/batch=00000001/record.json").read_text())
    assert (record["rows"], record["files"], record["quarantined"]) == (3, 2, 0)


def test_a_file_delivered_again_is_not_scored_again(data: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0, 1, 2])
    scored()
    add(data, "a.parquet", [3, 4])
    assert scored()["rows"] == 0


def test_bad_rows_and_files_are_quarantined(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    images = [IMAGES[0], b"hello", None, IMAGES[1][:60]]
    pq.write_table(pa.table({"id": ["good", "text", "null", "cut"], "image": images}), data / "a.parquet")
    whole = (data / "a.parquet").read_bytes()
    (data / "b.parquet").write_bytes(whole[: len(whole) // 2])
    summary = scored(request=Request(max_bad_fraction=0.9))
    assert (summary["rows"], summary["quarantined"]) == (4, 4)
    assert [row["id"] for row in table(spark, tmp_path, "scores")] == ["good"]
    reasons = {row["id"]: row["reason"] for row in table(spark, tmp_path, "quarantine")}
    assert reasons["text"].startswith("not an image: 5 bytes")
    assert reasons["null"] == "no bytes"
    assert reasons["cut"].startswith("damaged image")
    assert "Parquet" in reasons[None]


def test_too_many_bad_rows_publish_nothing(data: Path, tmp_path: Path, scored: Scored) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "image": [IMAGES[0], b"hello"]}), data / "a.parquet")
    mistake = r"--max-bad-fraction: 1 of 2 rows cannot be read, more than 0\.01 of them; the first, b: not an image"
    for _ in range(2):
        with pytest.raises(UserError, match=mistake):
            scored()
    assert not (tmp_path / "out/scores").exists()
    assert not (tmp_path / "out/quarantine").exists()
    assert scored(request=Request(max_bad_fraction=0.5))["rows"] == 2


def test_folder_of_images(
    spark: SparkSession, data: Path, tmp_path: Path, scored: Scored, expected: np.ndarray
) -> None:
    below = data / "deep [er]"
    below.mkdir()
    for number, name in enumerate(("b+ä.png", "a 100%.png")):
        (below / name).write_bytes(IMAGES[number])
    (data / "notes.txt").write_text("hello")
    assert scored(request=Request(max_bad_fraction=0.5))["rows"] == 3
    rows = {row["id"]: row for row in table(spark, tmp_path, "scores")}
    assert set(rows) == {"deep [er]/b+ä.png", "deep [er]/a 100%.png"}
    found = [rows["deep [er]/b+ä.png"]["scores"][name] for name in ("0", "1", "2")]
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)
    assert [row["id"] for row in table(spark, tmp_path, "quarantine")] == ["notes.txt"]


def test_nothing_there_yet(data: Path, scored: Scored) -> None:
    assert scored()["rows"] == 0
    add(data, "a.parquet", [0])
    assert scored()["rows"] == 1


def test_batches_of_files(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    for number in range(5):
        add(data, f"{number}.parquet", [number])
    assert scored(request=Request(files_per_batch=2))["batches"] == 3
    assert sorted(row["id"] for row in table(spark, tmp_path, "scores")) == [f"row {n}" for n in range(5)]


def test_several_models_in_one_pass(
    spark: SparkSession, data: Path, tmp_path: Path, small: str, scored: Scored, expected: np.ndarray
) -> None:
    """One that is there twice, as a registry and its current version are, scores once."""
    other = write_model(random_model("squeezenet", seed=2), tmp_path / "other")
    twin = str(shutil.copytree(small, tmp_path / "twin"))
    add(data, "a.parquet", [0, 1])
    summary = scored(models=[small, other, twin])
    rows = table(spark, tmp_path, "scores")
    assert len(rows) == 4
    theirs = insitu.load(other).model.predict(decoded(IMAGES[:2]), verbose=0)
    for model, scores in zip(summary["models"], (expected, theirs), strict=True):
        own = [row for row in rows if row["model"] == model]
        found = [[row["scores"][name] for name in ("0", "1", "2")] for row in own]
        np.testing.assert_allclose(found, scores[:2], rtol=0, atol=1e-4)


def test_only_rows_that_are_asked_for(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    """A value is never SQL, and an excluded row leaves no trace, not even a bad one."""
    odd = "o'hare'; DROP TABLE x --"
    columns = {"consent `given`": ["yes", odd, "no", "yes"], "image": [IMAGES[0], IMAGES[1], b"secret", IMAGES[3]]}
    pq.write_table(pa.table({"id": ["a", "b", "c", "d"]} | columns), data / "a.parquet")
    assert scored(request=Request(where=conditions([f"consent `given`={odd}"])))["rows"] == 1
    assert [row["id"] for row in table(spark, tmp_path, "scores")] == ["b"]
    assert not table(spark, tmp_path, "quarantine")


def test_thresholds_by_a_column(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0, 0], site=["north", "south"])
    by = ByColumn(column="site", values={"north": {"0": 1.0, "1": 1.0, "2": 1.0}})
    scored(request=Request(thresholds=Thresholds(by=by)))
    assert sorted(len(row["decision"]) for row in table(spark, tmp_path, "scores")) == [0, 1]


def test_folders_are_columns(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    """As Spark writes them: percent signs for what a path cannot hold, and a word for null."""
    frame = spark.createDataFrame([("a", "10:30 +1"), ("b", "o'hare"), ("c", None)], "id string, `seen at` string")
    images = spark.createDataFrame([("abc"[n], IMAGES[n]) for n in range(3)], "id string, image binary")
    frame.join(images, "id").write.partitionBy("seen at").mode("append").parquet(str(data))
    add(data, "outside.parquet", [3])
    assert scored(request=Request(where={"seen at": "10:30 +1"}))["rows"] == 1
    assert scored(output=str(tmp_path / "all"))["rows"] == 4


def test_folders_however_they_are_written(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    """A percent sign that Hive would not have written is itself, and `Site` is `site`."""
    for number, folder in enumerate(("off=50%/site=north", "off=50%/Site=north", "Site=south")):
        (data / folder).mkdir(parents=True)
        add(data / folder, f"{number}.parquet", [number])
    assert scored(request=Request(where={"site": "north", "off": "50%"}))["rows"] == 2
    assert [row["id"] for row in table(spark, tmp_path, "scores")] == ["row 0", "row 1"]


def test_no_file_name_is_taken_for_more_than_a_name(
    spark: SparkSession, data: Path, tmp_path: Path, scored: Scored
) -> None:
    """A colon is what Hadoop does not open in the name of a file."""
    (data / "a::b").mkdir()
    for name in ("a::b/c.parquet", "[d]*?{e}.parquet", "f%20 +g.parquet", "h::i.parquet"):
        add(data, name, [0])
    summary = scored(request=Request(max_bad_fraction=0.5))
    assert (summary["rows"], summary["quarantined"]) == (3, 1)
    (row,) = table(spark, tmp_path, "quarantine")
    assert (row["source"], row["reason"]) == (
        f"file://{data}/h::i.parquet",
        "a colon in its name, which Hadoop does not open",
    )


def test_excluded_folders_leave_no_trace(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    """Not even a file that cannot be read; one outside of such folders is told, since it may hold any row."""
    for place in ("site=north", "site=south"):
        (data / place).mkdir()
        add(data / place, "a.parquet", [0])
        (data / place / "bad.parquet").write_bytes(b"PAR1 secret")
    request = Request(where={"site": "north"}, max_bad_fraction=0.9)
    assert (scored(request=request)["rows"], scored(request=request)["rows"]) == (1, 0)
    (row,) = table(spark, tmp_path, "quarantine")
    assert row["source"] == f"file://{data}/site=north/bad.parquet"
    add(data, "outside.parquet", [1])
    assert scored(request=request)["rows"] == 0


def test_a_column_that_is_a_folder_elsewhere_is_refused(data: Path, scored: Scored) -> None:
    """Else the folder's value would be lost, and its rows with it."""
    (data / "Site=north").mkdir()
    add(data / "Site=north", "a.parquet", [0])
    add(data, "b.parquet", [1], site=["south"])
    with pytest.raises(
        UserError, match=r"--data: site is a column of .*/b\.parquet and a folder above .*/a\.parquet, "
    ):
        scored(request=Request(where={"site": "north"}))
    (data / "b.parquet").unlink()


def test_the_same_types_by_other_writers(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0])
    large = pa.table({"id": ["large"], "image": IMAGES[:1]}).cast(
        pa.schema([("id", pa.large_string()), ("image", pa.large_binary())])
    )
    pq.write_table(large, data / "b.parquet")
    words = pa.table({"id": pa.array(["word"]).dictionary_encode(), "image": IMAGES[:1]})
    pq.write_table(words, data / "c.parquet")
    assert scored()["rows"] == 3


def test_damaged_pages_are_quarantined(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0])
    add(data, "b.parquet", [1, 2])
    whole = bytearray((data / "b.parquet").read_bytes())
    whole[4:200] = bytes(196)
    (data / "b.parquet").write_bytes(whole)
    summary = scored(request=Request(max_bad_fraction=0.5))
    assert (summary["rows"], summary["quarantined"]) == (1, 1)
    assert [row["id"] for row in table(spark, tmp_path, "scores")] == ["row 0"]
    (row,) = table(spark, tmp_path, "quarantine")
    assert (row["id"], row["source"]) == (None, f"file://{data}/b.parquet")
    assert row["reason"].startswith("no whole Parquet file: ")


def test_a_batch_without_the_conditions_column(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    """It is null where earlier batches had it."""
    add(data, "a.parquet", [0], site=["north"])
    request = Request(where={"site": "north"}, thresholds=Thresholds(by=ByColumn(column="site", values={})))
    assert scored(request=request)["rows"] == 1
    add(data, "b.parquet", [1])
    assert (scored(request=request)["rows"], scored(request=request)["batches"]) == (0, 0)
    with pytest.raises(UserError, match=r"--thresholds: the data has no column sight"):
        add(data, "c.parquet", [1], site=["north"])
        scored(request=Request(where={"site": "north"}, thresholds=Thresholds(by=ByColumn(column="sight", values={}))))


def test_scores_that_are_no_numbers_are_quarantined(
    spark: SparkSession, data: Path, tmp_path: Path, scored: Scored
) -> None:
    model = random_model("squeezenet")
    model.get_layer("head").bias.assign([np.nan] + [0] * (CLASSES - 1))
    broken = write_model(model, tmp_path / "broken")
    add(data, "a.parquet", [0])
    for runtime in ("openvino", "bigdl"):
        output = tmp_path / runtime
        request = Request(max_bad_fraction=1)
        assert scored(models=[broken], output=str(output), runtime=runtime, request=request)["quarantined"] == 1
        (row,) = spark.read.parquet(f"{output}/quarantine").collect()
        assert row["reason"] == "the model's scores are not finite"


def test_rows_are_called_by_their_folder_too(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    for day in ("day=1", "day=2"):
        (data / day).mkdir()
        pq.write_table(pa.table({"image": IMAGES[:1]}), data / day / "part 0.parquet")
    scored()
    found = [row["id"] for row in table(spark, tmp_path, "scores")]
    assert found == ["day=1/part 0.parquet row 0", "day=2/part 0.parquet row 0"]


def test_columns_of_other_types_are_named(data: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0])
    pq.write_table(pa.table({"id": [7], "image": IMAGES[:1]}), data / "b.parquet")
    with pytest.raises(UserError, match=r"--data: column id is int64 in .*b\.parquet and string in .*a\.parquet"):
        scored()


def test_a_bad_file_alone_in_a_folder_of_parquet(
    spark: SparkSession, data: Path, tmp_path: Path, scored: Scored
) -> None:
    """It is not taken for an image, and does not end the schedule."""
    add(data, "a.parquet", [0], site=["north"])
    request = Request(where={"site": "north"}, max_bad_fraction=1)
    assert scored(request=request)["rows"] == 1
    (data / "b.parquet").write_bytes(b"garbage")
    (data / "empty.parquet").touch()
    assert scored(request=request)["quarantined"] == 1
    add(data, "c.parquet", [1], site=["north"])
    assert scored(request=request)["rows"] == 1
    (row,) = table(spark, tmp_path, "quarantine")
    assert row["source"] == f"file://{data}/b.parquet"


def test_another_condition_wants_another_output(data: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0, 1], site=["north", "south"])
    scored(request=Request(where={"site": "north"}))
    with pytest.raises(UserError, match=r"--where: what .* tells was scored with --where site=north; name another"):
        scored()


def test_an_output_is_not_bound_before_it_holds_scores(data: Path, tmp_path: Path, scored: Scored) -> None:
    (tmp_path / "mistyped").mkdir()
    assert scored(data=str(tmp_path / "mistyped"))["rows"] == 0
    (tmp_path / "mistyped/b.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match="--max-bad-fraction: 1 of 1 files cannot be read"):
        scored(data=str(tmp_path / "mistyped"))
    add(data, "a.parquet", [0])
    assert scored()["files"] == 1


def test_rows_without_an_id(spark: SparkSession, data: Path, tmp_path: Path, scored: Scored) -> None:
    pq.write_table(pa.table({"image": IMAGES[:2]}), data / "a b.parquet")
    scored()
    assert [row["id"] for row in table(spark, tmp_path, "scores")] == ["a b.parquet row 0", "a b.parquet row 1"]


def test_mistakes_are_named(data: Path, tmp_path: Path, scored: Scored) -> None:
    add(data, "a.parquet", [0])
    with pytest.raises(UserError, match=r"--data: .*nowhere does not exist; name a folder"):
        scored(data=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"--output: .* is within --data"):
        scored(output=str(data / "out"), data=str(data))
    with pytest.raises(UserError, match=r"--id-column: the data has no column name; name one of id, image"):
        scored(output=str(tmp_path / "1"), request=Request(id_column="name"))
    with pytest.raises(UserError, match=r"--where: the data has no column sight; its columns are id, image"):
        scored(output=str(tmp_path / "2"), request=Request(where={"sight": "north"}))
    with pytest.raises(UserError, match=r"--thresholds: the model has no class '7'; its classes are 0, 1, 2"):
        scored(output=str(tmp_path / "3"), request=Request(thresholds=Thresholds(classes={"7": 0.5})))
    with pytest.raises(UserError, match=r"--where: expected COLUMN=VALUE, got 'site'"):
        conditions(["site"])
    for limit in (-1.0, float("nan")):
        with pytest.raises(UserError, match=r"--max-bad-fraction: .*, expected 0 to 1"):
            scored(request=Request(max_bad_fraction=limit))
    with pytest.raises(UserError, match=r"--files-per-batch: 0, expected 1 or more"):
        scored(request=Request(files_per_batch=0))
    with pytest.raises(UserError, match=r"--model: .*none is no model directory"):
        scored(models=[str(tmp_path / "none")])
    scored()
    with pytest.raises(UserError, match=r"--output: it holds the scores of .*data in, not of .*elsewhere"):
        (tmp_path / "elsewhere").mkdir()
        scored(data=str(tmp_path / "elsewhere"))


def test_a_second_job_is_refused_and_the_first_one_named(data: Path, tmp_path: Path, scored: Scored) -> None:
    with (
        locked(f"file://{tmp_path}/out/_insitu/lock", setting="--output", output="it"),
        pytest.raises(
            UserError, match=rf"--output: .*/out is being written by another job \(.*process {os.getpid()}, "
        ),
    ):
        scored()


def test_an_output_without_its_record_or_its_scores_is_refused(data: Path, tmp_path: Path, scored: Scored) -> None:
    """Without its scores alone, what was quarantined would be so once more."""
    for number in range(2):
        add(data, f"{number}.parquet", [number])
        scored()
    (tmp_path / "out/scores").rename(tmp_path / "scores")
    with pytest.raises(UserError, match=r"--output: .*/out has no scores any more, and still has quarantine; remove"):
        scored()
    (tmp_path / "scores").rename(tmp_path / "out/scores")
    (tmp_path / "out/_insitu/checkpoint").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"--output: it holds scores, and .*checkpoint, which says of what, is gone"):
        scored()

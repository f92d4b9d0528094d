"""What a scored folder tells of its rows: records, drift, the page, and rows for people to label."""

import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance
from pyspark.sql import SparkSession

import insitu
from insitu.errors import UserError
from insitu.scoring.batch import Request, score_batch
from report.browser import overflow
from scored_models import IMAGES, decoded, random_model, reference_of, write_model

NAMES = ("0", "1", "2")


def dark(image: bytes) -> bytes:
    out = io.BytesIO()
    ImageEnhance.Brightness(Image.open(io.BytesIO(image))).enhance(0.2).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose validation rows were `IMAGES`, many times."""
    model = random_model("squeezenet")
    return write_model(model, tmp_path_factory.mktemp("models"), reference=reference_of(model, IMAGES * 20))


class Folder:
    """A folder that is scored every hour."""

    def __init__(self, spark: SparkSession, model: str, place: Path) -> None:
        self._spark = spark
        self._model = model
        self.place = place
        (place / "data").mkdir()
        self._newest = 0.0

    def add(self, name: str, images: Sequence[bytes | None], **columns: Any) -> None:
        """Deliver a file, later than every one before: Spark takes the oldest first, by the millisecond."""
        own = {"id": [f"{name} {row}" for row in range(len(images))], "image": list(images)}
        delivered = self.place / f"data/{name}.parquet"
        pq.write_table(pa.table(own | columns), delivered)
        self._newest = max(time.time(), self._newest + 0.01)
        os.utime(delivered, (self._newest, self._newest))

    def score(self, *, runtime: Any = "openvino", **request: Any) -> dict[str, Any]:
        return score_batch(
            self._spark,
            models=[self._model],
            data=str(self.place / "data"),
            output=str(self.place / "out"),
            request=Request(max_bad_fraction=0.5, **request),
            runtime=runtime,
        )

    def record(self, batch: int) -> dict[str, Any]:
        return json.loads((self.place / f"out/monitoring/batch={batch:08d}/record.json").read_text())

    def table(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.place / "out" / name).to_pylist()

    @property
    def page(self) -> Path:
        return self.place / "out/monitoring.html"


@pytest.fixture
def folder(spark: SparkSession, known: str, tmp_path: Path) -> Folder:
    return Folder(spark, known, tmp_path)


@pytest.fixture(scope="module")
def expected(known: str) -> np.ndarray:
    """Keras's scores of `IMAGES`."""
    return insitu.load(known).model.predict(decoded(IMAGES), verbose=0)


def test_record_tells_what_the_rows_were(folder: Folder, expected: np.ndarray) -> None:
    folder.add("a", [*IMAGES, b"hello"])
    assert folder.score()["alarms"] == []
    record = folder.record(0)
    assert (record["rows"], record["quarantined"], record["files"]) == (16, 1, 1)
    assert record["images_per_second"] == pytest.approx(16 / record["seconds"])
    assert record["oldest_file_waited_seconds"] > record["seconds"] - 1
    means = decoded(IMAGES)[:, ::4, ::4].mean(axis=(1, 2, 3)) / 255
    assert record["inputs"]["input_mean"] == pytest.approx(np.quantile(means, (0.05, 0.25, 0.5, 0.75, 0.95)), abs=1e-5)
    assert record["inputs"]["input_height"] == [38.0] * 5
    assert record["inputs"]["input_width"] == [45.0] * 5
    (model,) = record["models"]
    rates = np.bincount(expected.argmax(axis=1), minlength=3) / len(IMAGES)
    assert [model["label_rate"][name] for name in NAMES] == pytest.approx(rates)
    assert model["scores"]["1"][2] == pytest.approx(np.median(expected[:, 1]), abs=1e-4)
    assert {drift["statistic"] for drift in model["drift"]} >= {"input_mean", "score of 0"}


def test_drift_raises_an_alarm(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.add("like before", IMAGES)
    assert folder.score()["alarms"] == []
    folder.add("dark", [dark(image) for image in IMAGES])
    summary = folder.score()
    alarms = {alarm["statistic"]: alarm for alarm in summary["alarms"]}
    assert alarms["input_mean"]["batch"] == 1
    assert alarms["input_mean"]["psi"] > 0.2
    assert alarms["input_mean"]["model"] == summary["models"][0]
    assert "input_height" not in alarms
    assert f"model {summary['models'][0]}: input_mean is not as in validation (PSI" in capsys.readouterr().err
    page = folder.page.read_text()
    assert page.count("<svg") == 2 + 3 + 2
    assert "<script" not in page
    assert f'<td class="n">1</td><td>{summary["models"][0]}</td><td class="name">input_mean</td>' in page


def test_every_run_is_recorded(folder: Folder, tmp_path: Path) -> None:
    """One that finds nothing new leaves the page as it is; one that fails tells so there, with its alarms."""
    folder.add("a", IMAGES)
    folder.score()
    before = folder.page.stat().st_mtime_ns
    folder.score()
    assert folder.page.stat().st_mtime_ns == before
    folder.add("b", [dark(image) for image in IMAGES])
    folder.add("c", [b"hello"])
    with pytest.raises(UserError, match="--max-bad-fraction"):
        folder.score(files_per_batch=1)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out/runs").iterdir()]
    first, nothing, failed = sorted(runs, key=lambda run: run["started"])
    assert (first["outcome"], first["batches"], first["rows"]) == ("done", 1, 15)
    assert (nothing["outcome"], nothing["batches"]) == ("done", 0)
    assert failed["outcome"].startswith("UserError: --max-bad-fraction: 1 of 1 rows")
    assert "input_mean" in {alarm["statistic"] for alarm in failed["alarms"]}
    page = folder.page.read_text()
    assert "UserError: --max-bad-fraction: 1 of 1 rows" in page
    assert '<td class="name">input_mean</td>' in page


def test_page_is_as_wide_as_its_screen(folder: Folder, tmp_path: Path) -> None:
    for number in range(3):
        folder.add(f"{number}", [dark(image) for image in IMAGES])
    folder.score(files_per_batch=1)
    for width in (1280, 360):
        assert overflow(folder.page, width=width, scratch=tmp_path) == 0


def test_a_batch_without_a_good_row(folder: Folder) -> None:
    folder.add("a", IMAGES)
    folder.score()
    folder.add("b", [])
    assert folder.score()["batches"] == 1
    record = folder.record(1)
    assert (record["inputs"], record["models"][0]["drift"]) == ({}, [])
    assert record["models"][0]["label_rate"] == dict.fromkeys(NAMES)


def test_a_model_without_a_reference_has_no_drift(spark: SparkSession, small: str, tmp_path: Path) -> None:
    folder = Folder(spark, small, tmp_path)
    folder.add("a", IMAGES)
    assert folder.score()["alarms"] == []
    assert folder.record(0)["models"][0]["drift"] is None
    assert "keeps no validation rows" in folder.page.read_text()


def test_the_most_uncertain_rows_are_for_people_to_label(folder: Folder, expected: np.ndarray) -> None:
    folder.add("a", [*IMAGES, b"hello"], site=["north"] * 16)
    folder.score(send_to_label=3)
    rows = folder.table("to_label")
    ordered = np.sort(expected, axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    nearest = np.argsort(margins)[:3]
    assert {row["id"] for row in rows} == {f"a {n}" for n in nearest}
    for row in rows:
        number = int(row["id"].removeprefix("a "))
        assert (row["image"], row["site"]) == (IMAGES[number], "north")
        assert row["scored"]["id"] == row["id"]
        assert row["scored"]["margin"] == pytest.approx(margins[number], abs=1e-4)
        assert dict(row["scored"]["scores"])["2"] == pytest.approx(expected[number, 2], abs=1e-4)


def test_rows_of_one_id_are_chosen_one_by_one(folder: Folder) -> None:
    folder.add("a", IMAGES[:2] * 2)
    path = folder.place / "data/a.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "id", pa.array(["same"] * 4)), path)
    folder.score(send_to_label=2)
    assert len(folder.table("to_label")) == 2


def test_or_the_rows_least_like_the_validation_rows(folder: Folder) -> None:
    small = io.BytesIO()
    Image.open(io.BytesIO(IMAGES[4])).resize((10, 10)).save(small, "PNG")
    folder.add("a", [*IMAGES[:4], small.getvalue(), *IMAGES[5:]])
    folder.score(send_to_label=1, label_by="drifted")
    (row,) = folder.table("to_label")
    assert row["id"] == "a 4"
    assert row["scored"]["distance"] > 10


def test_mistakes_are_named(folder: Folder, spark: SparkSession, small: str, tmp_path: Path) -> None:
    folder.add("a", IMAGES, scored=[True] * len(IMAGES))
    with pytest.raises(UserError, match="--send-to-label: the data has a column scored; rename it"):
        folder.score(send_to_label=1)
    with pytest.raises(UserError, match="--send-to-label: -1, expected 0 or more"):
        folder.score(send_to_label=-1)
    with pytest.raises(UserError, match="--label-by: 'odd', expected uncertain or drifted"):
        folder.score(label_by="odd")
    with pytest.raises(UserError, match="--label-by: drifted, and bigdl tells nothing of the inputs"):
        folder.score(runtime="bigdl", send_to_label=1, label_by="drifted")
    (tmp_path / "other").mkdir()
    other = Folder(spark, small, tmp_path / "other")
    other.add("a", IMAGES)
    with pytest.raises(
        UserError, match=r"--label-by: drifted, and model \w+ has no reference\.parquet; train it again"
    ):
        other.score(send_to_label=1, label_by="drifted")


def test_bigdl_scores_the_same(folder: Folder, expected: np.ndarray) -> None:
    """It tells no statistics of the inputs."""
    folder.add("a", [*IMAGES, b"hello"])
    summary = folder.score(runtime="bigdl")
    assert (summary["rows"], summary["quarantined"], summary["precision"]) == (16, 1, "fp32")
    rows = {row["id"]: dict(row["scores"]) for row in folder.table("scores")}
    found = [[rows[f"a {n}"][name] for name in NAMES] for n in range(len(IMAGES))]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert folder.record(0)["inputs"] == {}

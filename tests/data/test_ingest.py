"""Folders of images become data sets, whole or not at all."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from insitu.cluster.session import arrow_batches
from insitu.data import image_files
from insitu.data.ingest import ingest
from insitu.errors import UserError

SEED = 23


def encoded(number: int, *, kind: str = "PNG", bits: int = 8) -> bytes:
    """A small image whose bytes differ by number."""
    pixels = np.random.default_rng([SEED, number]).integers(0, 1 << bits, (12, 10))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16 if bits == 16 else np.uint8)).save(file, kind)
    return file.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, payload in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(payload)
    return folder


@contextmanager
def partitions_of(spark: SparkSession, size: int, *, open_cost: int) -> Iterator[None]:
    """Within the block Spark plans partitions of at most `size` bytes, a file counting `open_cost` more."""
    settings = {"spark.sql.files.maxPartitionBytes": size, "spark.sql.files.openCostInBytes": open_cost}
    before = {key: spark.conf.get(key) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, kept in before.items():
            spark.conf.set(key, str(kept))


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 files of four formats, a folder for each of two classes, and nested folders."""
    kinds = [("PNG", 8), ("JPEG", 8), ("TIFF", 8), ("PNG", 16)]
    files = {}
    for number in range(40):
        kind, bits = kinds[number % 4]
        name = f"{'cat' if number < 16 else 'dog'}/day {number % 3}/{number:02d}.{kind.lower()}"
        files[name] = encoded(number, kind=kind, bits=bits)
    return put(tmp_path_factory.mktemp("pets"), files)


@pytest.fixture
def xrays(tmp_path: Path) -> Path:
    """24 X-rays of 6 patients with a CSV file in ChestX-ray14's form beside them."""
    findings = ["No Finding", "Mass", "Hernia|Mass", "Hernia"]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],\n"
    lines = [f"{number:08d}_000.png,{findings[number % 4]},0,{number // 4},10,12,\n" for number in range(24)]
    files = {f"images_{number % 3}/{number:08d}_000.png": encoded(number) for number in range(24)}
    put(tmp_path / "nih", files | {"Data_Entry_2017.csv": (header + "".join(lines)).encode()})
    return tmp_path / "nih"


@pytest.fixture
def run(spark: SparkSession, tmp_path: Path) -> Callable[..., tuple[dict, dict]]:
    """Ingest and return (summary, rows by id)."""

    def run(data: Path | str, name: str = "out", **options: object) -> tuple[dict, dict]:
        output = str(tmp_path / name)
        summary = ingest(spark, data=str(data), output=output, seed=SEED, **options)  # type: ignore[arg-type]
        return summary, {row["id"]: row for row in spark.read.parquet(output).collect()}

    return run


def test_folders_are_classes_and_bytes_are_untouched(
    spark: SparkSession, pets: Path, tmp_path: Path, run: Callable
) -> None:
    summary, rows = run(pets)
    assert summary["classes"] == ["cat", "dog"]
    assert (summary["rows"], summary["files"], summary["quarantined"]) == (40, 40, 0)
    assert summary["train"] + summary["validation"] == 40
    assert len(rows) == 40
    for name, row in rows.items():
        assert bytes(row["image"]) == (pets / name).read_bytes()
        assert row["label"] == summary["classes"].index(name.split("/")[0])
        assert row["group"] == name
    stored = spark.read.parquet(str(tmp_path / "out"))
    assert stored.columns == ["id", "group", "image", "label", "split"]
    assert stored.schema["label"].metadata == {"classes": ["cat", "dog"]}


def test_a_glob_takes_what_it_matches(pets: Path, run: Callable) -> None:
    summary, rows = run(f"{pets}/*/day 1/*.png")
    assert summary["files"] == len(rows) == len(list(pets.glob("*/day 1/*.png")))
    assert set(rows) == {str(path.relative_to(pets)) for path in pets.glob("*/day 1/*.png")}


def test_split_and_row_order_do_not_depend_on_partitions(
    spark: SparkSession, pets: Path, tmp_path: Path, run: Callable
) -> None:
    def stored(name: str) -> list[tuple]:
        files = sorted((tmp_path / name).glob("*.parquet"))
        return [tuple(row) for file in files for row in spark.read.parquet(str(file)).collect()]

    run(pets, "one")
    with partitions_of(spark, 2000, open_cost=0):
        run(pets, "many")
    assert stored("one") == stored("many")
    labels = [row[3] for row in stored("one")]
    assert labels != sorted(labels)


def test_chestxray14_labels_and_no_patient_on_both_sides(xrays: Path, run: Callable) -> None:
    summary, rows = run(xrays, labels=str(xrays / "Data_Entry_2017.csv"), group_column="Patient ID", holdout=0.4)
    assert summary["classes"] == ["Hernia", "Mass"]
    assert (summary["files"], summary["labels_without_file"]) == (24, 0)
    expected = [[0, 0], [0, 1], [1, 1], [1, 0]]
    sides: dict[str, set] = {}
    for name, row in rows.items():
        number = int(name.split("/")[1][:8])
        assert row["labels"] == expected[number % 4]
        assert row["group"] == str(number // 4)
        sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == 6 and all(len(splits) == 1 for splits in sides.values())


def test_bad_files_are_quarantined_with_their_reason(
    spark: SparkSession, tmp_path: Path, xrays: Path, run: Callable
) -> None:
    bad = {"empty.png": b"", "cut.png": encoded(1)[:-60], "notes.png": b"read me", "stray.png": encoded(99)}
    put(xrays, bad)
    table = xrays / "Data_Entry_2017.csv"
    table.write_text(
        table.read_text()
        + "".join(f"{name},Mass,0,7,10,12,\n" for name in ("empty.png", "cut.png", "notes.png", "gone.png"))
    )
    summary, rows = run(xrays, labels=str(table), max_bad_fraction=0.2)
    assert (summary["rows"], summary["quarantined"], summary["files"], summary["labels_without_file"]) == (24, 4, 28, 1)
    quarantine = spark.read.parquet(str(tmp_path / "out/_quarantine")).collect()
    reasons = {row["id"]: row["reason"] for row in quarantine}
    assert reasons["empty.png"] == "no bytes"
    assert reasons["cut.png"].startswith("damaged image")
    assert reasons["notes.png"].startswith("not an image: 7 bytes")
    assert reasons["stray.png"] == "no label"
    assert {row["path"].rsplit("/", 1)[1] for row in quarantine} == set(bad)
    assert not set(bad) & set(rows)


def test_a_line_without_its_group_is_quarantined(
    spark: SparkSession, tmp_path: Path, xrays: Path, run: Callable
) -> None:
    table = xrays / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("00000003_000.png,Hernia,0,0,", "00000003_000.png,Hernia,0,,"))
    run(xrays, labels=str(table), group_column="Patient ID", max_bad_fraction=0.2, holdout=0.4)
    quarantine = spark.read.parquet(str(tmp_path / "out/_quarantine")).collect()
    assert [(row["id"], row["reason"]) for row in quarantine] == [("images_0/00000003_000.png", "no group")]


def test_a_file_too_large_to_hold_is_quarantined_unread(
    spark: SparkSession, tmp_path: Path, pets: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(path.stat().st_size for path in pets.rglob("*.*"))
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", largest - 1)
    run(pets, max_bad_fraction=0.9)
    reasons = {row["reason"] for row in spark.read.parquet(str(tmp_path / "out/_quarantine")).collect()}
    assert reasons == {f"{largest} bytes, more than the {largest - 1} that are read"}


def test_past_max_bad_fraction_nothing_is_published(tmp_path: Path, pets: Path, run: Callable) -> None:
    data = put(
        tmp_path / "data",
        {f"{kind}/{n}.png": encoded(n) for kind in "ab" for n in range(8)}
        | {"a/x.png": b"text", "b/y.png": b"", "b/z.png": b""},
    )
    with pytest.raises(
        UserError, match=r"--data: 3 of 19 files are unusable, 2 for: no bytes \(b/y.png\); .*--max-bad-fraction"
    ):
        run(data, max_bad_fraction=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_memory_is_bounded_by_small_batches_and_partitions_that_follow_the_folder(
    spark: SparkSession, pets: Path
) -> None:
    with partitions_of(spark, 16 << 20, open_cost=4 << 20):
        files = image_files.list_files(spark, str(pets), leave_out=None)
        assert files.rdd.getNumPartitions() >= 40 * 4 // 16

    def sizes(batches):  # type: ignore[no-untyped-def]
        for batch in batches:
            yield type(batch).from_pydict({"rows": [batch.num_rows]})

    with arrow_batches(spark, image_files.ARROW_ROWS):
        assert max(row["rows"] for row in files.coalesce(1).mapInArrow(sizes, "rows long").collect()) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nowhere"}, "--data: .*nowhere matches no file; name a folder"),
        ({"data": "nowhere/*.png"}, "--data: .* matches no file"),
        ({"holdout": 1.5}, "--holdout: 1.5 is no share between 0 and 1"),
        ({"max_bad_fraction": 1.0}, r"--max-bad-fraction: 1\.0 is no share in \[0, 1\)"),
        ({"holdout": 1e-6}, "--holdout: the validation split is left without rows"),
        ({"labels": "gone.csv"}, "--labels: .*gone.csv.*; name a CSV file that exists"),
        ({"group_column": "patient"}, "--labels: is missing, though columns of it are named"),
        ({"data": "cat"}, "--data: every usable image has the same label, of the classes"),
        ({"data": "cat/day 1"}, "--labels: is missing, and --data holds no folders"),
    ],
)
def test_user_mistakes_are_named_and_nothing_appears(
    spark: SparkSession, pets: Path, tmp_path: Path, options: dict, message: str
) -> None:
    paths = {key: str(pets / value) for key, value in options.items() if key in ("data", "labels")}
    if options.get("data") == "cat":
        paths["data"] = f"{pets}/ca*/*/*"
    with pytest.raises(UserError, match=message):
        ingest(spark, **({"data": str(pets), "output": str(tmp_path / "out")} | options | paths))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_before_any_work(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--output: .* exists; name a new directory"):
        ingest(spark, data="nowhere", output=str(tmp_path))


def test_one_name_in_two_folders_needs_paths_in_the_csv_file(xrays: Path, run: Callable) -> None:
    put(xrays, {"twin/00000000_000.png": encoded(0)})
    with pytest.raises(
        UserError, match=r"--labels: several files are called '00000000_000\.png'; write paths below --data"
    ):
        run(xrays, labels=str(xrays / "Data_Entry_2017.csv"))

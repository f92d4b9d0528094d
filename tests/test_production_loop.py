"""The production loop: a promoted model scores, people label what it sends them, and the next one trains on with it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import insitu
from insitu.recipe import Recipe, parse
from insitu.scoring.batch import Request, score_batch
from training.digits_rows import digit_rows, recipe_tree, write_rows

LATER, LABELLED = 24, 8


def recipe(**parts: dict[str, object]) -> Recipe:
    tree = recipe_tree(epochs=1)
    tree["model"] = {"name": "mcnn", "options": {"width": 0.25}}
    tree["data"]["size"] = [64, 64]
    return parse(tree | {name: tree[name] | part for name, part in parts.items()})


@pytest.mark.slow
def test_from_scores_to_the_next_model(spark: SparkSession, tmp_path: Path) -> None:
    everything = digit_rows(train=64, validation=33 + LATER)
    data = write_rows(tmp_path / "data", {name: values[:-LATER] for name, values in everything.items()})
    truth = dict(zip(everything["id"], everything["label"], strict=True))
    incoming = write_rows(tmp_path / "incoming", {name: everything[name][-LATER:] for name in ("id", "image")})
    registry, holdout = str(tmp_path / "registry"), data

    insitu.train(spark, recipe(), data=data, output=str(tmp_path / "first"))
    assert insitu.promote(spark, candidate=str(tmp_path / "first"), registry=registry, holdout=holdout)["promoted"]

    request = Request(send_to_label=LABELLED)
    scored = score_batch(spark, models=[registry], data=incoming, output=str(tmp_path / "scores"), request=request)
    assert scored["rows"] == LATER
    to_label = pq.read_table(tmp_path / "scores/to_label")
    assert len(to_label) == LABELLED
    labels = pa.array([truth[row] for row in to_label["id"].to_pylist()], pa.int64())
    (tmp_path / "labelled").mkdir()
    pq.write_table(to_label.append_column("label", labels), tmp_path / "labelled/1.parquet")

    onwards = recipe(
        data={"additions": [str(tmp_path / "labelled")]},
        model={"init": registry, "keep_head": True},
    )
    assert insitu.train(spark, onwards, data=data, output=str(tmp_path / "second"))["added"] == LABELLED
    parent = json.loads((tmp_path / "second/provenance.json").read_text())["parent_model"]
    assert parent.startswith(f"file://{registry}/versions/")

    second = insitu.promote(
        spark,
        candidate=str(tmp_path / "second"),
        registry=registry,
        holdout=holdout,
        replay=incoming,
        max_drop=0.99,
        min_agreement=0,
    )
    assert (second["promoted"], second["previous"]) == (True, Path(parent).name)
    assert second["replay"]["read"] == LATER

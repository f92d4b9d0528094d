"""The page of a quantised directory, of results that a small model does not have."""

from pathlib import Path
from typing import Any

import numpy as np

from insitu import artifact
from insitu.scoring.quantization_page import write_page
from report.browser import overflow
from report.pages import HOSTILE, Tags, text
from report.trained_runs import Rows, write_run

LAYER = "densenet121/conv5_block16_1_conv/Conv2D-with-a-long-name-and-no-space-to-break-it"


def page(directory: Path, aucs: dict[str, list[float | None]], **facts: Any) -> str:
    """Of a model with these AUCs of fp32 and INT8 by class."""
    directory.mkdir()
    names = tuple(aucs)
    rows = Rows("multilabel", np.zeros((1, 64, 64, 1), np.uint8), np.zeros((1, len(names)), np.int64), names)
    metrics = {"loss": 0.1, "accuracy": 0.9, "auc": {name: of[0] for name, of in aucs.items()}, "auc_macro": 0.8}
    line = {"epoch": 0, "step": 5, "loss": 1.0, "learning_rate": 1e-3, "images_per_second": 50.0}
    write_run(directory, rows, [line | {"validation": metrics}], steps_per_epoch=5, name="densenet121")
    provenance = artifact.read_json(directory / artifact.PROVENANCE)
    stored = {"bytes": 29_500_000, "zipped_bytes": 27_300_000, "zeros": 0.0, "distinct_values": 400_000}
    quantization = {
        "of_model": "0123456789ab",
        "data": {"uri": "hdfs://nn/xrays", "fingerprint": "9c11", "rows": 1000},
        "compression": {"sparsity": 0.0, "clusters": None},
        "calibration": {"ranges": "minmax", "rows": 300, "seed": 17},
        "metric": "auc_macro",
        "max_drop": 0.005,
        "restored": False,
        "floating_point": [],
        "found": {
            form: {
                "metrics": metrics,
                "by_class": {name: of[place] for name, of in aucs.items()},
                "images_per_second": 100.0,
                "stored": stored,
            }
            for place, form in enumerate(("fp32", "int8"))
        },
        "code": provenance["code"],
        "environment": provenance["environment"],
        "started": "2024-02-29T01:02:03Z",
    }
    artifact.write_json(directory / artifact.PROVENANCE, provenance | {"quantization": quantization | facts})
    write_page(directory)
    return (directory / artifact.QUANTIZATION).read_text()


def test_classes_are_sorted_by_change_and_those_without_one_are_last(tmp_path: Path) -> None:
    told = page(tmp_path / "model", {"a": [0.9, 0.91], "b": [None, None], "c": [0.9, 0.88], "d": [0.9, 0.9]})
    classes = text(told).partition(" Classes ")[2]
    order = "c 0.9000 0.8800 -0.0200 d 0.9000 0.9000 +0.0000 a 0.9000 0.9100 +0.0100 b – – –"  # noqa: RUF001
    assert order in classes
    assert "AUC of each class" in classes
    assert "Every convolution and dense layer computes in INT8." in classes
    assert "Pruned" not in text(told) and "Clustered" not in text(told)


def test_no_class_with_a_change_is_no_picture(tmp_path: Path) -> None:
    told = page(tmp_path / "model", {"a": [None, None]})
    assert "a – – –" in text(told)  # noqa: RUF001
    assert "<svg" not in told


def test_a_thousand_classes_are_cut_to_those_that_drop_most(tmp_path: Path) -> None:
    told = page(tmp_path / "model", {f"class {k}": [0.9, 0.9 - k / 10_000] for k in range(1000)})
    words = text(told)
    assert "The first 24 of 1,000 classes are shown." in words
    assert "class 999 " in words and "class 976 " in words and "class 975 " not in words
    assert len(told) < 100_000


def test_what_comes_from_data_is_escaped_and_breaks_no_layout(tmp_path: Path) -> None:
    told = page(tmp_path / "model", {HOSTILE: [0.9, 0.89], "b": [0.9, 0.9]}, restored=True, floating_point=[LAYER])
    assert "<script" not in told
    assert LAYER in text(told) and "layers were taken back to floating point" in text(told)
    tags = Tags(told)
    assert tags.open == []
    assert {tag for tag, _ in tags.found} & {"script", "link", "iframe", "img"} == set()
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0
    for width in (1280, 320):
        assert overflow(tmp_path / "model" / artifact.QUANTIZATION, width=width, scratch=tmp_path) == 0

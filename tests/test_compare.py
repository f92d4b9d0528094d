"""`insitu compare DIR DIR…`, as a person runs it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from insitu import artifact
from report.browser import overflow
from report.trained_runs import Rows, digit_rows, write_predictions, write_run


def publish(
    scratch: Path, name: str, *, epochs: int, accuracy: float, workers: int, validated: int = 8, init: str = ""
) -> str:
    """A published model directory whose metrics rise to `accuracy`; the network is not looked at."""
    rows: Rows = digit_rows(40)
    auc = {name: accuracy for name in rows.class_names}
    history = [
        {
            **{"epoch": epoch, "step": (epoch + 1) * 5, "loss": 1.0, "learning_rate": 1e-3, "images_per_second": 50.0},
            "validation": {"loss": 1 - share, "accuracy": share, "auc": auc, "auc_macro": accuracy},
        }
        for epoch, share in enumerate(accuracy * (epoch + 1) / epochs for epoch in range(epochs))
    ]
    source = scratch / f"{name}.source"
    source.mkdir()
    write_run(source, rows, history, steps_per_epoch=5, name="squeezenet", workers=workers)
    if init:
        recipe = yaml.safe_load((source / artifact.RECIPE).read_text())
        recipe["model"]["init"] = init
        (source / artifact.RECIPE).write_text(yaml.safe_dump(recipe))
    (source / artifact.MODEL).write_bytes(b"the network")
    write_predictions(source, rows.labels[:validated], np.zeros((validated, len(rows.class_names))))
    artifact.publish(source, str(scratch / name))
    return str(scratch / name)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    return [
        publish(tmp_path, "short", epochs=2, accuracy=0.75, workers=1),
        publish(tmp_path, "long <b>", epochs=4, accuracy=0.875, workers=2),
    ]


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "insitu"), "compare", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_prints_results_and_only_the_keys_that_differ(runs: list[str]) -> None:
    done = compare(*runs)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert rows[:4] == [[f"1: {runs[0]}"], [f"2: {runs[1]}"], [""], ["", "1: short", "2: long <b>"]]
    assert ["accuracy", "0.7500", "0.8750"] in rows
    assert ["auc 3", "0.7500", "0.8750"] in rows
    assert ["workers", "1", "2"] in rows
    assert [row for row in rows if "." in row[0] and row[0][0] not in "12"] == [["training.epochs", "2", "4"]]
    told = json.loads(summary)
    assert told["recipe_differences"] == {"training.epochs": [2, 4]}
    assert [run["metrics"]["accuracy"] for run in told["runs"]] == [0.75, 0.875]
    assert told["output"] is None


def test_page_overlays_the_curves_and_fits_a_phone(runs: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = compare(*runs, "--output", str(page))
    assert done.returncode == 0, done.stderr
    content = page.read_text()
    assert content.count("<svg") == 6
    assert '<td class="n best">0.8750</td>' in content
    assert "2: long &lt;b&gt;" in content
    for width in (320, 1280):
        assert overflow(page, width=width, scratch=tmp_path) == 0


def test_long_values_that_differ_at_their_end_are_told_apart(tmp_path: Path) -> None:
    parents = [f"hdfs://namenode.hospital.example:8020/models/chest-xrays/2026-11-{day}" for day in (29, 30)]
    runs = [
        publish(tmp_path, f"run{i}", epochs=1, accuracy=0.5, workers=1, init=parent) for i, parent in enumerate(parents)
    ]
    page = tmp_path / "page.html"
    done = compare(*runs, "--output", str(page))
    assert re.search(r"model\.init +" + " +".join(map(re.escape, parents)), done.stdout)
    assert all(parent in page.read_text() for parent in parents)
    assert overflow(page, width=320, scratch=tmp_path) == 0


@pytest.mark.parametrize("which", ["other data", "other rows of it"])
def test_runs_on_other_rows_have_no_best_one(runs: list[str], tmp_path: Path, which: str) -> None:
    other = tmp_path / "other"
    if which == "other data":
        shutil.copytree(runs[1], other)
        provenance = artifact.read_json(other / artifact.PROVENANCE)
        provenance["data"]["fingerprint"] = "another"
        artifact.write_json(other / artifact.PROVENANCE, provenance)
        artifact.seal(str(other))
    else:
        publish(tmp_path, "other", epochs=4, accuracy=0.875, workers=2, validated=7)
    page = tmp_path / "pages/page.html"
    done = compare(runs[0], str(other), "--output", str(page))
    assert done.returncode == 0, done.stderr
    assert "The runs were validated on different rows: their metrics cannot be compared." in done.stdout
    content = page.read_text()
    assert "The runs were validated on different rows: their metrics cannot be compared." in content
    assert '<td class="n best">' not in content


def test_same_recipes_are_said_to_be_the_same(tmp_path: Path) -> None:
    twins = [publish(tmp_path, name, epochs=1, accuracy=0.5, workers=1) for name in ("a", "b")]
    done = compare(*twins, "--output", str(tmp_path / "page.html"))
    assert json.loads(done.stdout.splitlines()[-1])["recipe_differences"] == {}
    assert "None: the recipes are the same." in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}"], "DIR: 1 model directory, expected two or more; "),
        (["{0}", "{0}"], "DIR: {0} is named twice; "),
        (["{0}", "{0}.absent"], "DIR: {0}.absent is no model directory "),
        (["{0}", "{1}", "--output", "{0}"], "--output: {0} exists; "),
    ],
)
def test_wrong_input_is_told_in_one_line(runs: list[str], arguments: list[str], message: str) -> None:
    done = compare(*(argument.format(*runs) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"insitu: {message.format(*runs)}")
    assert done.stderr.count("\n") == 1


def test_damaged_directory_is_refused(runs: list[str]) -> None:
    (Path(runs[1]) / artifact.METRICS).write_text("{}")
    done = compare(*runs)
    assert done.returncode == 2
    assert "metrics.json is not what was written" in done.stderr

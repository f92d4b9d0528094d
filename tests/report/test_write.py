"""The report of real, small runs: what it says, that it stands alone, and how it looks in a browser."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from insitu import artifact
from insitu.report import write_report
from report.browser import overflow, printed_pages, screenshot
from report.pages import HOSTILE, Tags, text
from report.trained_runs import Trained, digit_rows, train, write_lines, write_predictions, xray_rows


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("digits") / "model", digit_rows(160), validation=60, epochs=2)


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("xrays") / "model", xray_rows(90), validation=40, epochs=1)


@pytest.fixture
def copied(tmp_path: Path, digits: Trained) -> Trained:
    """The digits' run in a directory that the test may change."""
    return replace(digits, directory=shutil.copytree(digits.directory, tmp_path / "copy"))


def report(run: Trained) -> str:
    shutil.rmtree(run.directory / "report", ignore_errors=True)
    write_report(run.directory, model=run.model, read_images=run.read_images)
    return (run.directory / "report/index.html").read_text()


def edit(path: Path, **changes: Any) -> None:
    artifact.write_json(path, json.loads(path.read_text()) | changes)


def test_multiclass_report_shows_every_part(digits: Trained) -> None:
    page = report(digits)
    words = text(page)
    metrics = json.loads((digits.directory / artifact.METRICS).read_text())
    assert f"Accuracy {metrics['accuracy']:.1%}" in words
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        *("Learning", "Classes", "Confusion", "Calibration", "Predictions", "Throughput"),
        *("Data and provenance", "Recipe"),
    ]
    drawn = re.findall(r'<svg[^>]* aria-label="([^"]*)"', page)
    for chart in ("Loss by epoch", "Validation metrics by epoch", "Learning rate by step", "Images/s, all workers by"):
        assert sum(label.startswith(chart) for label in drawn) == 1, chart
    assert {f"ROC curve of {name}" for name in map(str, range(10))} < set(drawn)
    assert {"Confusion matrix", "Reliability diagram"} < set(drawn)
    assert "1,000 resamples of the rows, seed 17" in words
    assert "All 2 epochs were trained." in words
    assert (digits.directory / artifact.RECIPE).read_text().split()[-1] in words


def test_each_class_has_its_auc_in_an_interval(digits: Trained) -> None:
    aucs = json.loads((digits.directory / artifact.METRICS).read_text())["auc"]
    section = report(digits).partition("<h2>Classes</h2>")[2].partition("<h2>")[0]
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in section.split("<tr>")[2:]]
    rows = {name: values for name, *values in cells}
    assert rows.keys() == aucs.keys()
    for name, (_, _, auc, interval) in rows.items():
        low, high = map(float, interval.split(" – "))  # noqa: RUF001
        assert auc == f"{aucs[name]:.3f}"
        assert low <= float(auc) <= high and low < high


def test_predictions_are_pairs_of_an_image_and_its_heat_map(digits: Trained) -> None:
    sources = re.findall(r'<img src="data:image/webp;base64,([^"]*)" alt="[^"]+">', report(digits))
    images, heats = ([_pixels(source) for source in sources[first::2]] for first in (0, 1))
    assert len(images) == len(heats) >= 8
    assert all(image.shape == heat.shape for image, heat in zip(images, heats, strict=True))
    assert all((image[..., 0] == image[..., 2]).all() for image in images), "digits are grey"
    assert any((heat[..., 0] != heat[..., 2]).any() for heat in heats), "heat maps are coloured"


def _pixels(base64_webp: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(base64_webp))).convert("RGB")).astype(int)


def test_data_provenance_and_thread_plan_are_those_of_the_whole_run(digits: Trained) -> None:
    words, facts = text(report(digits)), json.loads((digits.directory / artifact.PROVENANCE).read_text())
    assert "in 5 min 12 s, started 2024-02-29 01:02 UTC. Resumed from step 7, 2024-02-29 06:02 UTC." in words
    openmp = "OMP_NUM_THREADS=2 KMP_AFFINITY=granularity=fine,compact,1,0 KMP_BLOCKTIME=1"
    assert f"From step 0: worker host cores threads 0 node-1 0-1 2 1 node-1 2-3 2 {openmp} From step 7: " in words
    assert f"worker host cores threads 0 node-1 0-1 2 {openmp} Data and provenance" in words
    assert "Started again from step 4: rank 1 on node-1 ended with exit code -9" in words
    assert f"uri {facts['data']['uri']}" in words
    assert f"fingerprint {facts['data']['fingerprint']} rows.train 900 rows.validation 100 rows.quarantined 1" in words
    assert f"commit {facts['code']['commit']}" in words
    assert "packages.tensorflow 2.15.1" in words


def test_multilabel_report_counts_labels_and_says_where_no_auc_is(xrays: Trained) -> None:
    words = text(report(xrays))
    assert "Label counts" in words
    assert "Confusion" not in words
    assert "only one label occurs" in words
    assert "One epoch was trained." in words
    assert "Missed, the lowest scores first" in words


def test_report_of_tensors_shows_no_pictures(copied: Trained) -> None:
    shutil.rmtree(copied.directory / "report", ignore_errors=True)
    write_report(copied.directory, model=copied.model, read_images=None)
    page = (copied.directory / "report/index.html").read_text()
    assert "The model reads tensors: there are no pictures to show." in text(page)
    assert "Grad-CAM" not in page and "<img" not in page
    for part in ("Learning", "ROC curves", "Confusion", "Calibration", "Throughput"):
        assert part in text(page)
    assert Tags(page).open == []


@pytest.mark.parametrize("name", ["digits", "xrays"])
def test_page_stands_alone_and_is_well_formed(name: str, request: pytest.FixtureRequest) -> None:
    tags = Tags(report(request.getfixturevalue(name)))
    assert tags.open == []
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0
    assert {tag for tag, _ in tags.found} & {"script", "link", "iframe"} == set()
    for tag, attributes in tags.found:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/webp;base64,"))
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["aria-label"]


def test_what_comes_from_data_is_escaped_and_breaks_no_layout(tmp_path: Path) -> None:
    rows = digit_rows(120)
    hostile = replace(rows, class_names=(HOSTILE, *rows.class_names[1:]))
    run = train(tmp_path / "model", hostile, validation=40, epochs=1)
    page = report(run)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x^2$" in page
    assert Tags(page).open == []
    assert overflow(run.directory / "report/index.html", width=320, scratch=tmp_path) == 0


def test_two_rows_none_of_them_wrong_and_no_steps(copied: Trained) -> None:
    write_predictions(copied.directory, np.array([0, 1]), np.eye(10, dtype=np.float32)[:2])
    edit(copied.directory / artifact.METRICS, auc={str(k): 1.0 if k < 2 else None for k in range(10)})
    write_lines(copied.directory / artifact.STEPS, [])
    words = text(report(copied))
    assert "No prediction is wrong." in words
    assert "2 validation rows" in words


def test_no_label_and_no_prediction_is_an_empty_gallery(tmp_path: Path, xrays: Trained) -> None:
    copied = replace(xrays, directory=shutil.copytree(xrays.directory, tmp_path / "copy"))
    write_predictions(copied.directory, np.zeros((2, 14), np.int64), np.zeros((2, 14), np.float32))
    names = json.loads((copied.directory / artifact.METRICS).read_text())["auc"]
    edit(copied.directory / artifact.METRICS, auc=dict.fromkeys(names), auc_macro=None)
    page = report(copied)
    for none in ("No label was found.", "No label was missed.", "There is no false alarm."):
        assert none in page
    assert "<img" not in page
    assert "Accuracy" in text(page).partition("Macro AUC")[0]


def test_early_stopping_names_the_epoch_that_was_kept(copied: Trained) -> None:
    history = [json.loads(line) for line in (copied.directory / artifact.HISTORY).read_text().splitlines()]
    artifact.write_json(copied.directory / artifact.METRICS, history[0]["validation"])
    recipe = (copied.directory / artifact.RECIPE).read_text()
    (copied.directory / artifact.RECIPE).write_text(recipe.replace("epochs: 2", "epochs: 9"))
    page = report(copied)
    assert "Stopped early, after epoch 2 of 9; the weights of epoch 1 were kept." in text(page)
    assert "kept weights" in page


def test_epochs_that_a_frozen_trunk_left_out_are_no_others(copied: Trained) -> None:
    lines = [json.loads(line) for line in (copied.directory / artifact.HISTORY).read_text().splitlines()]
    lines[1]["epoch"] = 8
    (copied.directory / artifact.HISTORY).write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = (copied.directory / artifact.RECIPE).read_text()
    (copied.directory / artifact.RECIPE).write_text(recipe.replace("epochs: 2", "epochs: 9"))
    assert "2 of 9 epochs were trained: with a frozen trunk it stopped early." in text(report(copied))


def test_a_thousand_classes_are_cut_to_the_weakest_and_it_is_said(copied: Trained) -> None:
    random = np.random.default_rng(1)
    names = [f"class {k}" for k in range(1000)]
    signature = json.loads((copied.directory / artifact.SIGNATURE).read_text())
    artifact.write_json(copied.directory / artifact.SIGNATURE, signature | {"class_names": names})
    edit(copied.directory / artifact.METRICS, auc={name: k / 1000 for k, name in enumerate(names)})
    scores = random.dirichlet(np.full(1000, 0.01), 500).astype(np.float32)
    scores[:, 10:] /= 1000  # the ten classes that the small model knows are the answers, to be explained
    labels = np.concatenate([np.arange(30), random.integers(0, 1000, 470)])
    write_predictions(copied.directory, labels, scores)
    page = report(replace(copied, read_images=lambda rows: copied.read_images([row % 60 for row in rows])))
    words = text(page)
    assert "The 24 classes with the lowest AUC of 1,000 are shown." in words
    assert "16 classes with the most wrong rows" in words
    assert page.count("<svg") <= 24 + 6
    assert len(page) < 2_000_000


@pytest.mark.parametrize("width", [1280, 360, 320])
@pytest.mark.parametrize("name", ["digits", "xrays"])
def test_nothing_is_wider_than_the_screen(
    name: str, width: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(name)
    report(run)
    assert overflow(run.directory / "report/index.html", width=width, scratch=tmp_path) == 0


def test_nothing_is_cut_in_print(copied: Trained, tmp_path: Path) -> None:
    """On a screen a long recipe scrolls."""
    report(copied)
    short = printed_pages(copied.directory / "report/index.html", scratch=tmp_path)
    with (copied.directory / artifact.RECIPE).open("a") as recipe:
        recipe.writelines(f"# remark {number}\n" for number in range(300))
    report(copied)
    assert short > 1
    assert printed_pages(copied.directory / "report/index.html", scratch=tmp_path) >= short + 3


@pytest.mark.parametrize("width", [1280, 360])
def test_browser_draws_the_headline_and_the_curves(xrays: Trained, width: int, tmp_path: Path) -> None:
    report(xrays)
    picture = screenshot(xrays.directory / "report/index.html", width=width, height=1200, scratch=tmp_path)
    pixels = np.asarray(Image.open(picture).convert("RGB"))[:, :width]
    for colour in ((0, 114, 178), (213, 94, 0)):  # the first two of the palette: headline tile, validation curve
        assert (np.abs(pixels.astype(int) - colour).max(axis=2) < 12).sum() > 50
    assert (pixels[:, -4:] > 240).all()  # the page's margin

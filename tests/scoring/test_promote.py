"""A candidate becomes current if it is not worse: on labelled rows, and on recent ones."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

import insitu
from conftest import ROOT
from image_data import as_npy
from insitu import artifact, cli
from insitu.errors import UserError
from insitu.recipe import parse
from insitu.registry import Registry
from insitu.scoring.batch import score_batch
from insitu.scoring.dataframes import register_udf, score
from insitu.scoring.promote import promote
from insitu.scoring.thresholds import Thresholds
from scored_models import CLASSES, IMAGES, decoded, image_rows, random_model, scores_of, write_model
from training.digits_rows import recipe_tree

NAMES = tuple(map(str, range(CLASSES)))
Promote = Callable[..., dict[str, Any]]


def write_candidate(
    model: tf.keras.Model, directory: Path, *, trained_on: str = "elsewhere", data: dict[str, Any] | None = None
) -> str:
    """A model directory with what a promotion reads; `trained_on` is the fingerprint of its data."""
    tree = recipe_tree() | {"task": {"kind": "multiclass", "classes": NAMES}}
    recipe = parse(tree | {"data": data} if data else tree).to_yaml()
    provenance = json.dumps({"data": {"fingerprint": trained_on}})
    return write_model(model, directory, with_ir=True, texts={artifact.RECIPE: recipe, artifact.PROVENANCE: provenance})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`good` and `twin` score alike, `other` differs."""
    scratch, good = tmp_path_factory.mktemp("models"), random_model("squeezenet")
    return {
        "good": write_candidate(good, scratch / "good"),
        "twin": write_candidate(good, scratch / "twin", trained_on="elsewhere, a day later"),
        "other": write_candidate(random_model("squeezenet", seed=2), scratch / "other"),
    }


@pytest.fixture(scope="module")
def answers(models: dict[str, str]) -> dict[str, np.ndarray]:
    """What Keras takes each of `IMAGES` for."""
    return {
        name: insitu.load(directory).model.predict(decoded(IMAGES), verbose=0).argmax(axis=1)
        for name, directory in models.items()
    }


@pytest.fixture
def holdout(tmp_path: Path, answers: dict[str, np.ndarray]) -> str:
    """Labels as `good` gives them; rows of the training split, labelled wrongly, do not count."""
    right = answers["good"].tolist()
    wrong = [(label + 1) % CLASSES for label in right]
    split = ["validation"] * len(right) + ["train"] * len(right)
    return write_rows(tmp_path / "holdout", {"image": IMAGES * 2, "label": right + wrong, "split": split})


def write_rows(folder: Path, columns: dict[str, Any]) -> str:
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    return str(folder)


@pytest.fixture
def try_to_promote(spark: SparkSession, models: dict[str, str], holdout: str, tmp_path: Path) -> Promote:
    def run(name: str, **changes: Any) -> dict[str, Any]:
        given = {"candidate": models.get(name, name), "registry": str(tmp_path / "registry"), "holdout": holdout}
        return promote(spark, **given | changes)

    return run


def test_the_first_only_has_to_score_the_holdout(
    spark: SparkSession, try_to_promote: Promote, models: dict[str, str], tmp_path: Path
) -> None:
    summary = try_to_promote("other", replay=str(tmp_path / "not looked at"))
    identity = artifact.identity(models["other"])
    assert summary["promoted"] and "not_done" not in summary
    assert (summary["current"], summary["previous"]) == (f"0001-{identity}", None)
    assert (summary["holdout"]["rows"], summary["holdout"]["metric"]) == (len(IMAGES), "accuracy")
    assert summary["holdout"]["candidate"] < 1
    assert summary["replay"] is None


def test_a_registry_is_taken_for_its_current_version(
    spark: SparkSession, try_to_promote: Promote, models: dict[str, str], tmp_path: Path
) -> None:
    try_to_promote("other")
    try_to_promote("good")
    registry, rows = str(tmp_path / "registry"), image_rows(spark, IMAGES, (len(IMAGES),))
    expected = scores_of(score(rows, models["good"]))
    np.testing.assert_array_equal(scores_of(score(rows, registry)), expected)
    register_udf(spark, "current_model", registry)
    found = rows.selectExpr("current_model(image)['0'] AS score").collect()
    np.testing.assert_array_equal([row["score"] for row in found], expected[:, 0])
    data = write_rows(tmp_path / "data", {"image": IMAGES})
    summary = score_batch(spark, models=[registry], data=data, output=str(tmp_path / "scores"))
    assert summary["models"] == [artifact.identity(models["good"])]
    assert summary["rows"] == len(IMAGES)


def test_a_registry_without_a_current_version_is_told(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "registry/versions").mkdir(parents=True)
    message = r"/registry is a registry without a current version; promote a model into it by insitu promote"
    for runtime in ("openvino", "bigdl"):
        with pytest.raises(UserError, match=f"model_dir: .*{message}"):
            score(image_rows(spark, IMAGES, (len(IMAGES),)), str(tmp_path / "registry"), runtime=runtime)
    with pytest.raises(UserError, match=f"--model: .*{message}"):
        score_batch(spark, models=[str(tmp_path / "registry")], data=str(tmp_path), output=str(tmp_path) + ".out")


def test_worse_on_the_holdout_is_refused(try_to_promote: Promote, models: dict[str, str], tmp_path: Path) -> None:
    before = try_to_promote("good")
    summary = try_to_promote("other")
    assert not summary["promoted"]
    reached = summary["holdout"]["candidate"]
    assert (summary["holdout"]["current"], summary["current"]) == (1, before["current"])
    assert summary["not_done"] == (
        f"not promoted: its accuracy on the holdout is {reached:.4f}, and the current version's 1.0000, "
        "a drop of more than 0"
    )
    assert len(list((tmp_path / "registry/versions").iterdir())) == 1
    assert try_to_promote("other", max_drop=0.999)["promoted"]


def test_equal_and_better_are_accepted(try_to_promote: Promote, tmp_path: Path) -> None:
    worst, better, equal = (try_to_promote(name) for name in ("other", "good", "twin"))
    assert better["previous"] == worst["current"]
    assert better["holdout"]["candidate"] > better["holdout"]["current"]
    assert equal["previous"] == better["current"]
    record = Registry(f"file://{tmp_path}/registry", setting="--registry").record(equal["current"])
    assert record["compared_with"] == better["current"]
    assert record["holdout"] == equal["holdout"]
    assert record["precision"] == {"candidate": "fp32", "current": "fp32"}
    assert record["holdout"]["metrics"]["candidate"]["accuracy"] == 1


def test_other_decisions_on_the_replay_are_refused(
    try_to_promote: Promote, answers: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The holdout holds rows that both take for the same, the replay all of them and one that is no image."""
    same = np.flatnonzero(answers["good"] == answers["other"])
    assert 0 < len(same) < 0.9 * len(IMAGES)
    columns = {"image": [IMAGES[row] for row in same], "label": answers["good"][same].tolist()}
    given = {
        "holdout": write_rows(tmp_path / "same", columns),
        "replay": write_rows(tmp_path / "recent", {"image": [*IMAGES, b"no image"]}),
    }
    try_to_promote("good", **given)
    summary = try_to_promote("other", **given)
    agreement = len(same) / len(IMAGES)
    assert summary["not_done"] == (
        f"not promoted: its decisions agree on {agreement:.4f} of the replay, which is less than 0.9"
    )
    replay = summary["replay"]
    assert (replay["rows"], replay["read"], replay["lost"]) == (len(IMAGES) + 1, len(IMAGES), 0)
    for name, shares in replay["classes"].items():
        before, after = (answers[model] == int(name) for model in ("good", "other"))
        expected = {"current": before.mean(), "candidate": after.mean(), "agreement": (before == after).mean()}
        assert shares == pytest.approx(expected)
    assert f"decisions agree on {agreement:.4f}" in capsys.readouterr().err
    assert try_to_promote("other", **given, min_agreement=agreement - 1e-6)["replay"]["agreement"] == agreement
    allowed = try_to_promote("good", **given, thresholds=Thresholds(default=1.0))
    assert allowed["replay"]["agreement"] == 1, "nothing is decided for by either"


def test_rows_that_only_the_current_version_reads_are_refused(try_to_promote: Promote, tmp_path: Path) -> None:
    """Flat arrays fit both shapes, others only the current version's."""
    windows = np.random.default_rng(4).normal(size=(12, 40, 32)).astype(np.float32)
    upright = random_model("squeezenet", rows=windows[..., None])
    lying = random_model("squeezenet", rows=windows.reshape(12, 32, 40, 1))
    first, second = (
        write_candidate(model, tmp_path / name, data={"tensor_shape": shape})
        for model, name, shape in ((upright, "upright", [40, 32]), (lying, "lying", [32, 40]))
    )
    flat, shaped = [as_npy(window.ravel()) for window in windows], [as_npy(window) for window in windows]
    given = {
        "holdout": write_rows(tmp_path / "flat", {"tensor": flat, "label": [0, 1, 2] * 4}),
        "replay": write_rows(tmp_path / "recent", {"id": list(range(12)), "tensor": flat[:9] + shaped[9:]}),
        "max_drop": 0.999,
        "min_agreement": 0,
    }
    try_to_promote(first, **given)
    summary = try_to_promote(second, **given)
    assert summary["not_done"] == (
        "not promoted: it cannot read 3 rows of the replay that the current version reads, the first "
        "10: array of shape (40, 32), expected (32, 40)"
    )
    assert (summary["replay"]["rows"], summary["replay"]["read"]) == (12, 9)


def test_mistakes_are_named(
    try_to_promote: Promote, models: dict[str, str], answers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--max-drop: 1, expected 0 or more, less than 1"):
        try_to_promote("good", max_drop=1)
    with pytest.raises(UserError, match=r"--min-agreement: 90, expected 0 to 1"):
        try_to_promote("good", min_agreement=90)
    with pytest.raises(UserError, match=r"--candidate: .*nowhere is no model directory"):
        try_to_promote(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"--registry: .*model is no registry"):
        try_to_promote("good", registry=models["other"])
    with pytest.raises(UserError, match=r"--precision: int8, and .* holds no int8/"):
        try_to_promote("good", precision="int8")
    with pytest.raises(UserError, match=r"--thresholds: the model has no class '7'; its classes are 0, 1, 2"):
        try_to_promote("good", thresholds=Thresholds(classes={"7": 0.5}))
    with pytest.raises(UserError, match=r"--holdout: .*nowhere does not exist"):
        try_to_promote("good", holdout=str(tmp_path / "nowhere"))
    unlabelled = write_rows(tmp_path / "unlabelled", {"image": IMAGES})
    with pytest.raises(UserError, match=r"--holdout: data\.label_column: no column label or labels among image; bring"):
        try_to_promote("good", holdout=unlabelled)
    strange = write_rows(tmp_path / "strange", {"image": IMAGES, "label": [CLASSES] * len(IMAGES)})
    with pytest.raises(UserError, match=r"--holdout: task\.classes: label 3 is outside the classes 0\.\.2"):
        try_to_promote("good", holdout=strange)
    bad = write_rows(tmp_path / "bad", {"image": [b"hello", *IMAGES[1:]], "label": answers["good"].tolist()})
    with pytest.raises(UserError, match=r"--holdout: 1 of 15 rows cannot be used, .* the first: not an image"):
        try_to_promote("good", holdout=bad)
    assert not (tmp_path / "registry").exists()


def test_a_holdout_that_was_trained_on_is_refused(
    try_to_promote: Promote, answers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    from insitu.data.dataset import open_dataset

    seen = write_rows(tmp_path / "seen", {"image": IMAGES, "label": answers["good"].tolist()})
    candidate = write_candidate(
        random_model("squeezenet"), tmp_path / "model", trained_on=open_dataset(seen).fingerprint
    )
    with pytest.raises(
        UserError, match=r"--holdout: .*/seen is what one of the models was trained on, without a column"
    ):
        try_to_promote(candidate, holdout=seen)


def test_what_cannot_be_compared_with_the_current_version(try_to_promote: Promote, tmp_path: Path) -> None:
    current = try_to_promote("good")["current"]
    with pytest.raises(
        UserError, match=rf"--candidate: .* is the current version already, {current}; nothing is to be"
    ):
        try_to_promote("good")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"--replay: .*/none holds no file; name a folder of recent rows"):
        try_to_promote("twin", replay=str(tmp_path / "none"))
    (tmp_path / "registry/versions" / current / artifact.SIGNATURE).write_text("{}")
    with pytest.raises(UserError, match=rf"--registry: .*{current}: signature\.json is not what was written"):
        try_to_promote("twin")


def test_the_commands(try_to_promote: Promote, models: dict[str, str], holdout: str, tmp_path: Path) -> None:
    try_to_promote("good")
    registry = str(tmp_path / "registry")
    command = ["insitu", "promote", "--candidate", models["other"], "--registry", registry, "--holdout", holdout]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 3, refused.stderr
    summary = json.loads(refused.stdout)
    assert not summary["promoted"]
    assert refused.stderr.splitlines()[-1] == f"insitu: {summary['not_done']}"
    back = cli._parser().parse_args(["rollback", registry])
    with pytest.raises(UserError, match=f"REGISTRY: file://{registry} has no previous version to go back to; "):
        back.run(back)
    for option in ("--experiment", "--registered-model"):
        alone = cli._parser().parse_args(["rollback", registry, option, "name"])
        with pytest.raises(UserError, match=f"^{option}: name, which is of MLflow, without --tracking-uri; give that"):
            alone.run(alone)

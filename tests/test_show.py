"""`insitu show DIR`, as a person runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from insitu import artifact
from insitu.artifact import ImagePreprocessing, Signature, Tensor

SIGNATURE = Signature(
    task="multilabel",
    inputs=(Tensor("image", "uint8", (None, 96, 96, 1), "NHWC"),),
    outputs=(Tensor("scores", "float32", (None, 2), "NK"),),
    class_names=("Mass", "Hernia"),
    preprocessing=ImagePreprocessing((96, 96), 1),
)
METRICS = {"loss": 0.25, "accuracy": 0.9125, "auc": {"Mass": 0.8765, "Hernia": None}, "auc_macro": 0.8765}
PROVENANCE = {
    "data": {
        "uri": "hdfs://nn/xrays",
        "rows": {"train": 900, "validation": 100},
        "additions": [{"uri": "hdfs://nn/labelled", "rows": 20}],
    },
    "code": {"insitu": "0.1.0", "commit": "abc"},
    "parent_model": "hdfs://nn/chexnet",
    "started": "2024-02-29T01:02:03Z",
    "run": {"workers": 2, "precision": "bf16", "epochs": 1, "steps": 28, "seconds": 12.5},
}
RECIPE = """
model: {name: densenet121}
training: {engine: orca, global_batch: 32, optimizer: {name: adam}}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / artifact.MODEL).write_bytes(b"the network, which show does not load")
    (source / artifact.RECIPE).write_text(RECIPE)
    artifact.write_json(source / artifact.SIGNATURE, SIGNATURE.to_json())
    artifact.write_json(source / artifact.METRICS, METRICS)
    artifact.write_json(source / artifact.PROVENANCE, PROVENANCE)
    epoch = {"epoch": 0, "loss": 0.5, "images_per_second": 44.04, "validation": METRICS}
    (source / artifact.HISTORY).write_text(json.dumps(epoch) + "\n")
    artifact.publish(source, str(tmp_path / "model"))
    return tmp_path / "model"


def show(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "insitu"), "show", str(directory)]
    return subprocess.run(command, capture_output=True, text=True)


def test_prints_what_the_model_is_and_a_summary(model: Path) -> None:
    done = show(model)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    assert json.loads(summary) == {
        "directory": str(model),
        "model": "densenet121",
        "task": "multilabel",
        "metrics": METRICS,
    }
    assert [" ".join(line.split()) for line in lines if line] == [
        "model densenet121, multilabel, 2 classes",
        "input image uint8 Bx96x96x1 NHWC",
        "output scores float32 Bx2 NK",
        "data hdfs://nn/xrays, 900 training and 100 validation rows",
        "addition hdfs://nn/labelled, 20 of the training rows",
        "training 1 epochs in 12.5 s, 2 workers, 32 images a step, adam, bf16, orca",
        "made 2024-02-29T01:02:03Z by insitu 0.1.0 (abc)",
        "parent hdfs://nn/chexnet",
        "epoch loss validation loss images/s",
        "1 0.5000 0.2500 44.0",
        "loss 0.2500",
        "accuracy 0.9125",
        "auc_macro 0.8765",
        "auc Mass 0.8765",
        "auc Hernia -",
    ]


def test_missing_directory_is_told_in_one_line(tmp_path: Path) -> None:
    done = show(tmp_path / "absent")
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"insitu: DIR: {tmp_path}/absent is no model directory (it has no checksums.json); name the --output"
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_changed_byte_is_told_in_one_line(model: Path) -> None:
    changed = bytearray((model / artifact.MODEL).read_bytes())
    changed[3] ^= 1
    (model / artifact.MODEL).write_bytes(changed)
    done = show(model)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"insitu: DIR: {model}: model.keras is not what was written (its SHA-256 differs); ")
    assert done.stderr.count("\n") == 1

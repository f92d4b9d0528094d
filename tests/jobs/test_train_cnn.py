"""The main job from its command line, as a user runs it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Submitted
from training.digits_rows import digit_rows, write_rows

JOB = "jobs/train_cnn.py"
RECIPE = "conf/recipes/digits.yaml"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits, made by the `insitu` command."""
    output = tmp_path_factory.mktemp("digits") / "data"
    subprocess.run(["insitu", "data", "digits", str(output)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return output


def test_digits_in_local_mode(submit: Callable[..., Submitted], digits: Path, tmp_path: Path) -> None:
    run = submit(JOB, "--recipe", RECIPE, "--data", digits, "--output", tmp_path / "model")
    assert run.summary["metrics"]["accuracy"] >= 0.97
    assert run.summary["output"] == f"file://{tmp_path}/model"
    assert len(run.stdout.splitlines()) == 1
    assert [line for line in run.stderr.splitlines() if line.startswith("epoch 14: loss ")]


def test_digits_on_a_standalone_cluster(
    submit: Callable[..., Submitted], standalone: str, digits: Path, tmp_path: Path
) -> None:
    run = submit(JOB, "--recipe", RECIPE, "--data", digits, "--output", tmp_path / "model", master=standalone)
    assert run.summary["workers"] == 2
    assert run.summary["metrics"]["accuracy"] >= 0.97


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "training.epcohs=1"], "train_cnn: training.epcohs: unknown key; did you mean epochs?"),
        (["--set", "training.epochs=many"], "train_cnn: training.epochs: input should be a valid integer"),
        (["--recipe", "nowhere.yaml"], "train_cnn: --recipe: cannot read nowhere.yaml"),
        (["--data", "nowhere"], "train_cnn: --data: "),
        (["--output", "conf"], "train_cnn: --output: "),
        (["--epochs", "1"], "train_cnn: error: unrecognized arguments: --epochs 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_end_with_2_and_one_line(
    submit: Callable[..., Submitted], tmp_path: Path, flags: list[str], message: str
) -> None:
    data = write_rows(tmp_path / "data", digit_rows())
    run = submit(JOB, "--recipe", RECIPE, "--data", data, "--output", tmp_path / "model", *flags)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "model").exists()

"""The main job from its command line, as a user runs it."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from conftest import ROOT, Submitted
from standalone import stop_group
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


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A job that has trained its first epoch and has many to go."""
    data = write_rows(tmp_path / "data", digit_rows())
    flags = ["--recipe", RECIPE, "--data", data, "--output", str(tmp_path / "model"), "--set", "training.epochs=10000"]
    process = subprocess.Popen(
        ["spark-submit", "--master", "local[2]", JOB, *flags],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("epoch 1:"):
            assert process.poll() is None
        yield process
    finally:
        stop_group(process)


def test_ctrl_c_ends_the_job_and_its_workers(running: subprocess.Popen[str], tmp_path: Path) -> None:
    workers = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stderr.splitlines()[-1] == "train_cnn: interrupted"
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert not (tmp_path / "model").exists()


def test_a_killed_worker_ends_the_job_with_its_failure(running: subprocess.Popen[str], tmp_path: Path) -> None:
    started = psutil.Process(running.pid).children(recursive=True)
    alive = [process for process in started if process.status() != psutil.STATUS_ZOMBIE]
    workers = [process for process in alive if "pyspark.daemon" in process.cmdline()]
    largest = max(workers, key=lambda process: process.memory_info().rss)
    largest.kill()
    stdout, stderr = running.communicate(timeout=120)
    assert (running.returncode, stdout) == (1, "")
    assert "Python worker exited unexpectedly (crashed)" in stderr
    assert stderr.splitlines()[-1] == "train_cnn: failed: Py4JJavaError"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

"""The main job from its command line, as a user runs it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from conftest import ROOT, Submitted
from insitu import artifact, cli
from standalone import stop_group
from training.digits_rows import digit_rows, write_rows
from training.killing_job import command_line

JOB = "jobs/train_cnn.py"
RECIPE = "conf/recipes/digits.yaml"
SMALL = ("--recipe", RECIPE, "--set", "model.name=squeezenet")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_")}


@pytest.fixture(scope="module")
def digits(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits, as the `insitu` command makes them."""
    output = tmp_path_factory.mktemp("digits") / "data"
    args = cli._parser().parse_args(["data", "digits", str(output)])
    args.run(args)
    return output


def on_a_terminal(command: list[str]) -> tuple[str, str]:
    """Run it to a good end with a real pseudo-terminal as its stderr; returns what it wrote to stdout and there."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=slave, text=True, start_new_session=True
    )
    os.close(slave)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # nobody has the other side any longer
            while piece := os.read(master, 1 << 16):
                shown += piece
        stdout, _ = process.communicate(timeout=60)
    finally:
        os.close(master)
        stop_group(process)
    assert process.returncode == 0, shown.decode()
    return stdout, shown.decode()


def test_digits_in_local_mode_on_a_terminal(digits: Path, tmp_path: Path) -> None:
    options = ("--set", "training.epochs=4", "--set", "training.schedule.decay.at_epochs=[3]")
    files = ("--recipe", RECIPE, "--data", str(digits), "--output", str(tmp_path / "model"))
    stdout, shown = on_a_terminal(["spark-submit", "--master", "local[2]", JOB, *files, *options])
    (line,) = stdout.splitlines()
    summary = json.loads(line)
    assert summary["metrics"]["accuracy"] >= 0.9
    assert summary["output"] == f"file://{tmp_path}/model"
    assert re.search(r"\repoch 2/4 \|\S+ *\| \d+/\d+ \[\S+<\S+, loss \S+, auc_macro \S+, \S+ img/s\]", shown), shown
    assert re.search(r"\repoch 4: loss ", shown)
    assert " in epoch " not in shown, "these lines are for files"


SHORTER = ("--set", "training.epochs=10", "--set", "training.schedule.decay.at_epochs=[7, 9]")


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["orca", "bigdl"])
def test_digits_on_a_standalone_cluster(
    submit: Callable[..., Submitted], standalone: str, digits: Path, tmp_path: Path, engine: str
) -> None:
    options = (*SHORTER, "--set", f"training.engine={engine}")
    run = submit(JOB, "--recipe", RECIPE, "--data", digits, "--output", tmp_path / "model", *options, master=standalone)
    assert (run.summary["engine"], run.summary["workers"]) == (engine, 2)
    assert run.summary["metrics"]["accuracy"] >= 0.97


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["orca", "bigdl"])
def test_digits_to_their_published_accuracy_in_local_mode(
    submit: Callable[..., Submitted], digits: Path, tmp_path: Path, engine: str
) -> None:
    options = (*SHORTER, "--set", f"training.engine={engine}")
    run = submit(JOB, "--recipe", RECIPE, "--data", digits, "--output", tmp_path / "model", *options)
    assert run.summary["metrics"]["accuracy"] >= 0.97
    logged = [line for line in run.stderr.splitlines() if "INFO" in line or "WARN" in line]
    assert not logged, "logs go to logs/insitu.log"
    assert not (ROOT / "bigdl.log").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "training.epcohs=1"], "train_cnn: training.epcohs: unknown key; did you mean epochs?"),
        (["--set", "training.epochs=many"], "train_cnn: training.epochs: input should be a valid integer"),
        (["--recipe", "nowhere.yaml"], "train_cnn: --recipe: cannot read nowhere.yaml"),
        (
            ["--set", "training.engine=bigdl", "--set", "training.precision=bf16"],
            "train_cnn: training.precision: BigDL computes in fp32, not in bf16; leave it out, or train with ",
        ),
        (["--epochs", "1"], "train_cnn: error: unrecognized arguments: --epochs 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_end_with_2_before_spark_starts(tmp_path: Path, flags: list[str], message: str) -> None:
    given = ["--recipe", RECIPE, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "model"), *flags]
    run = subprocess.run([sys.executable, JOB, *given], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in run.stderr


def test_a_mistake_in_the_data_is_one_line_and_exit_2(submit: Callable[..., Submitted], tmp_path: Path) -> None:
    run = submit(JOB, "--recipe", RECIPE, "--data", tmp_path / "nowhere", "--output", tmp_path / "model")
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"train_cnn: --data: file://{tmp_path}/nowhere does not exist; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_report_that_cannot_be_drawn_costs_no_model_and_ends_with_3(
    submit: Callable[..., Submitted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")  # as a notebook's server or a login shell may leave it
    data, output = write_rows(tmp_path / "data", digit_rows()), tmp_path / "model"
    run = submit(JOB, *SMALL, "--data", data, "--output", output, "--set", "training.epochs=1")
    assert run.returncode == 3
    not_done = json.loads(run.stdout.splitlines()[-1])["not_done"]
    assert not_done.startswith(
        f"file://{output} is published, but its report cannot be drawn (ValueError: Key backend: "
    )
    assert run.stderr.splitlines()[-1] == f"train_cnn: {not_done}"
    assert "Traceback" in run.stderr
    artifact.verify(str(output), part=artifact.MODEL, setting="DIR")
    assert not (output / "report").exists()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the job with many epochs to go, with further flags, and waits for the end of one."""
    data = write_rows(tmp_path / "data", digit_rows())
    started: list[subprocess.Popen[str]] = []

    def start_job(*flags: str, master: str = "local[2]") -> subprocess.Popen[str]:
        files = ["--data", data, "--output", str(tmp_path / "model")]
        process = subprocess.Popen(
            ["spark-submit", "--master", master, JOB, *SMALL, *files, "--set", "training.epochs=10000", *flags],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stderr is not None
        while not process.stderr.readline().startswith("epoch "):
            assert process.poll() is None
        return process

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite under nohup would have jobs ignore it too
    yield start_job
    signal.signal(signal.SIGHUP, before)
    for process in started:
        stop_group(process)


def last_step(run: Path) -> int:
    return max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def executors() -> list[psutil.Process]:
    """Those of this process's clusters."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "CoarseGrainedExecutorBackend" in command_line(child)]


def end_by(
    end: Callable[[subprocess.Popen[str]], None],
    process: subprocess.Popen[str],
    tmp_path: Path,
    *,
    code: int,
    words: str,
) -> int:
    """End a run from outside; returns the step of the checkpoint that it leaves, and nothing else."""
    roots = [psutil.Process(process.pid), *executors()]
    family = [member for root in roots for member in [root, *root.children(recursive=True)]]
    end(process)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (code, ""), stderr
    step = last_step(tmp_path / "model.run")
    assert f"last checkpoint after step {step}; --resume goes on" in stderr.splitlines()[-2]
    assert stderr.splitlines()[-1] == f"train_cnn: {words}"
    assert "Traceback" not in stderr
    assert not psutil.wait_procs(family, timeout=30)[1]
    assert not (tmp_path / "model").exists()
    return step


@pytest.mark.slow
def test_run_outlives_ctrl_c_sigterm_and_the_death_of_its_driver(
    start: Start, submit: Callable[..., Submitted], standalone: str, tmp_path: Path
) -> None:
    """One run, begun on a cluster, ended three times and gone on with each time, leaves its model and nothing else."""
    begun = start(master=standalone)
    assert len(executors()) == 2
    end_by(lambda process: os.killpg(process.pid, signal.SIGINT), begun, tmp_path, code=130, words="interrupted")
    step = end_by(lambda process: process.terminate(), start("--resume"), tmp_path, code=143, words="terminated")

    process = start("--resume", "--set", "training.checkpoint.every_steps=1")
    while last_step(tmp_path / "model.run") == step:
        assert process.poll() is None
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert not psutil.wait_procs(family, timeout=60)[1]

    step = last_step(tmp_path / "model.run")
    files = ["--data", tmp_path / "data", "--output", tmp_path / "model"]
    run = submit(JOB, *SMALL, *files, "--resume", "--set", f"training.epochs={step + 2}")
    assert (run.summary["resumed_from_step"], run.summary["steps"]) == (step, step + 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"]


@pytest.mark.slow
def test_bigdl_run_outlives_ctrl_c_sigterm_and_sighup(
    start: Start, submit: Callable[..., Submitted], tmp_path: Path
) -> None:
    bigdl = ("--set", "training.engine=bigdl")
    first = end_by(
        lambda process: os.killpg(process.pid, signal.SIGINT), start(*bigdl), tmp_path, code=130, words="interrupted"
    )
    step = end_by(
        lambda process: process.terminate(), start(*bigdl, "--resume"), tmp_path, code=143, words="terminated"
    )
    assert step > first
    step = end_by(
        lambda process: process.send_signal(signal.SIGHUP),
        start(*bigdl, "--resume"),
        tmp_path,
        code=129,
        words="terminated",
    )
    files = ["--data", tmp_path / "data", "--output", tmp_path / "model"]
    run = submit(JOB, *SMALL, *files, *bigdl, "--resume", "--set", f"training.epochs={step + 2}")
    assert (run.summary["resumed_from_step"], run.summary["steps"]) == (step, step + 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"]


@pytest.mark.slow
def test_a_worker_that_dies_too_often_ends_the_job_with_its_death(start: Start, tmp_path: Path) -> None:
    process = start("--set", "training.max_restarts=0")
    family = psutil.Process(process.pid).children(recursive=True)
    alive = [member for member in family if member.status() != psutil.STATUS_ZOMBIE]
    workers = [member for member in alive if "pyspark.daemon" in member.cmdline()]
    max(workers, key=lambda member: member.memory_info().rss).kill()
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, "")
    assert "rank 0 on 127.0.0.1: exit code 137 (SIGKILL): " in stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("train_cnn: failed")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

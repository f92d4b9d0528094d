"""Training jobs as a user starts them: spark-submit, on some of this machine's cores."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xrays import BUILD, xrays

ROOT = BUILD.parent.parent
CORES = len(os.sched_getaffinity(0))
_BIN = Path(sys.executable).parent
_EXECUTOR_MIB = 6144


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some epochs of a model on synthetic X-rays.

    Attributes:
        model: the topology.
        program: what spark-submit runs, with the arguments of jobs/train_cnn.py.
        cores, workers: the workers share the cores evenly.
        local_batch: images a worker in a step.
        steps: of an epoch.
        precision: bf16 or fp32.
        settings: more keys of the recipe.
        executors: of as many processes, which share the cores evenly; 0 is Spark's local mode.
        driver_gib: heap of the driver, which in local mode is the workers'.
        confined: the driver to these cores too; Orca's workers bind themselves to theirs.
    """

    model: str
    program: str = "jobs/train_cnn.py"
    cores: int = CORES
    workers: int = CORES
    local_batch: int = 16
    steps: int = 8
    precision: str = "bf16"
    settings: tuple[str, ...] = field(default=())
    executors: int = 0
    driver_gib: int = 4
    confined: bool = False

    def __str__(self) -> str:
        layout = f"{self.workers} x {self.cores // self.workers} cores, {self.local_batch} images each"
        settings = "".join(f" {setting}" for setting in self.settings)
        return f"{self.program} {self.model} {self.precision}{settings}, {layout}"

    def images_per_second(self) -> float:
        """Of the last epoch's steps, with all that happens between them."""
        with self.submitted() as (process, output):
            finished(process)
            last = (output / "history.jsonl").read_text().splitlines()[-1]
        return json.loads(last)["images_per_second"]

    @property
    def rows(self) -> int:
        """To train on."""
        return self.workers * self.local_batch * self.steps

    @contextmanager
    def submitted(self) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
        """The running job, its stdout and stderr in one pipe, and the model directory that it will make."""
        data = xrays(self.rows)
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            output = Path(scratch) / "model"
            process = program([*self._submit(), *self._arguments(data, output)])
            try:
                yield process, output
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.communicate()

    def _submit(self) -> list[str]:
        cores = ["taskset", "-c", f"0-{self.cores - 1}"] if self.confined else []
        return [*cores, "spark-submit", "--master", self._master, "--driver-memory", f"{self.driver_gib}g"]

    @property
    def _master(self) -> str:
        if not self.executors:
            return f"local[{self.cores}]"
        return f"local-cluster[{self.executors},{self.cores // self.executors},{_EXECUTOR_MIB}]"

    def _arguments(self, data: Path, output: Path) -> list[str]:
        settings = (
            f"model.name={self.model}",
            f"training.workers={self.workers}",
            f"training.global_batch={self.workers * self.local_batch}",
            f"training.precision={self.precision}",
            *self.settings,
        )
        flags = [argument for setting in settings for argument in ("--set", setting)]
        return [self.program, "--recipe", "benchmarks/xrays.yaml", "--data", str(data), "--output", str(output), *flags]


def program(command: Sequence[str]) -> "subprocess.Popen[str]":
    """A running program, this environment's before others of its name, its stdout and stderr in one pipe."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def generated(kind: str, *options: str) -> Path:
    """The dataset of `insitu data KIND DATASET OPTIONS…`, made once under build/bench/."""
    directory = BUILD / "-".join(["data", kind, *(option.removeprefix("--") for option in options)])
    if not directory.exists():
        finished(program(["insitu", "data", kind, str(directory), *options]))
    return directory


def demo_data() -> Path:
    """What `make demo` trains on."""
    return generated("xrays", "--images", "5000", "--size", "96", "--seed", "1")


def submitted(arguments: Sequence[str], *, tasks: int) -> "subprocess.Popen[str]":
    """A running job on all cores, its executor's tasks sharing them evenly."""
    master = ["--master", f"local[{CORES}]", "--conf", f"spark.task.cpus={CORES // tasks}", "--driver-memory", "4g"]
    return program(["spark-submit", *master, *arguments])


def run(arguments: Sequence[str], *, tasks: int = 1) -> dict[str, Any]:
    """Run such a job to its end, and return its summary."""
    return finished(submitted(arguments, tasks=tasks))


def finished(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a job and return its summary.

    Raises:
        RuntimeError: it failed; the message is what it said last.
    """
    said = process.communicate()[0].splitlines()
    if process.returncode:
        raise _failure(said)
    return json.loads(next(line for line in reversed(said) if line.startswith("{")))


def wait_for_line(process: "subprocess.Popen[str]", beginning: str) -> None:
    """Read what a job says until a line begins so.

    Raises:
        RuntimeError: it ended without such a line; the message is what it said last.
    """
    assert process.stdout
    said = []
    for line in process.stdout:
        if line.startswith(beginning):
            return
        said.append(line.rstrip())
    raise _failure(said)


def _failure(said: list[str]) -> RuntimeError:
    return RuntimeError("\n".join(["the job failed", *said[-30:]]))

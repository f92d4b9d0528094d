"""ALS and a CNN at once on one machine: each on its half of the cores, beside the other against alone there.

    python benchmarks/side_by_side.py

A JSON line for each on stdout. They are two applications that `taskset` keeps on disjoint cores: DenseNet-121
trains on the first half, for two minutes alone and then while ALS of rank 64 fits 2 million ratings on the other.
"""

import re
import subprocess
import sys
import time
from contextlib import suppress
from threading import Thread

from als import Fit
from job_runs import CORES, Job, wait_for_line
from lines import emit

_HALF = CORES // 2
_CNN = Job(model="densenet121", cores=_HALF, workers=_HALF, steps=128, settings=("training.epochs=1",), confined=True)
_ALS = Fit("insitu", "insitu.recommend.als", 64, first_core=CORES - _HALF, cores=_HALF)
_ALONE_SECONDS = 120  # the CNN says its step every half minute


def main() -> None:
    fit_alone = _ALS.run()["seconds"]
    with _CNN.submitted() as (process, _):
        wait_for_line(process, "step ")
        steps = _Steps(process)
        before = time.monotonic()
        time.sleep(_ALONE_SECONDS)
        between = time.monotonic()
        fit_beside = _ALS.run()["seconds"]
        after = time.monotonic()
        if process.poll() is not None:
            raise RuntimeError(f"the CNN ended before the fit did: raise its {_CNN.steps} steps")
    emit(
        "side_by_side_cnn",
        subject=("DenseNet-121 beside ALS", steps.images_per_second(between, after)),
        peer=("DenseNet-121 alone on these cores", steps.images_per_second(before, between)),
        unit="images/s",
    )
    emit(
        "side_by_side_als",
        subject=("ALS beside DenseNet-121", fit_beside),
        peer=("ALS alone on these cores", fit_alone),
        unit="seconds",
        less_is_better=True,
    )


class _Steps:
    """When a running job said that it had done which step."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout
        self._said = process.stdout
        self._steps: list[tuple[float, int]] = []
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(ValueError):  # the job is ended, and its pipe closed, when both are measured
            for line in self._said:
                if found := re.match(r"step (\d+)/", line):
                    self._steps.append((time.monotonic(), int(found[1])))
                    print(line, end="", file=sys.stderr)

    def images_per_second(self, since: float, until: float) -> float:
        """From the first to the last line between two moments."""
        (began, first), *_, (ended, last) = [step for step in self._steps if since <= step[0] <= until]
        return (last - first) * _CNN.workers * _CNN.local_batch / (ended - began)


if __name__ == "__main__":
    main()

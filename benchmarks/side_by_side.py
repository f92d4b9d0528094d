"""ALS and a CNN at once on one machine: each on its half of the cores, beside the other against alone there.

    python benchmarks/side_by_side.py

A JSON line for each on stdout. They are two applications that the thread plan keeps on disjoint cores: DenseNet-121
trains on the first half, while ALS of rank 64 fits 2 million ratings on the other.
"""

import sys
from dataclasses import replace
from typing import Any

from als import Fit
from job_runs import CORES, Job, finished, wait_for_line
from lines import emit

_HALF = CORES // 2
_CNN = Job(model="densenet121", cores=_HALF, workers=_HALF, steps=12)
_ALS = Fit("insitu", "insitu.recommend.als", 64, first_core=CORES - _HALF, cores=_HALF)
_STEPS_BESIDE = 40  # the CNN's, which last longer than a fit with all that comes before it


def main() -> None:
    alone = _CNN.images_per_second()
    print(f"DenseNet-121 alone: {alone:.2f} images/s", file=sys.stderr)
    fit_alone = _ALS.run()["seconds"]
    cnn, fit = _together()
    emit(
        "side_by_side_cnn",
        subject=("DenseNet-121 beside ALS", cnn["images_per_second"]),
        peer=("DenseNet-121 alone on these cores", alone),
        unit="images/s",
    )
    emit(
        "side_by_side_als",
        subject=("ALS beside DenseNet-121", fit),
        peer=("ALS alone on these cores", fit_alone),
        unit="seconds",
        less_is_better=True,
    )


def _together() -> tuple[dict[str, Any], float]:
    """The CNN's summary, and the seconds of a fit that began after the CNN's first step and ended before its last."""
    with replace(_CNN, steps=_STEPS_BESIDE).submitted() as (process, _):
        wait_for_line(process, "step ")
        fit = _ALS.run()["seconds"]
        if process.poll() is not None:
            raise RuntimeError(f"the CNN ended before the fit did: raise the {_STEPS_BESIDE} steps")
        return finished(process), fit


if __name__ == "__main__":
    main()

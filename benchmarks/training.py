"""How fast a training job is, and against what.

    python benchmarks/training.py [NAME…]

A JSON line a claim on stdout, what is being measured on stderr. All inputs are 224x224. Speeds are those of the
median step; subjects and peers run in turns, and the best of two turns counts.
"""

from collections.abc import Callable
from dataclasses import replace

from comparisons import Comparison, run_chosen
from costs import checkpoint_cost, memory, start_up
from job_runs import Job
from keras_runs import Keras


def _layouts(job: Job) -> tuple[Job, Job]:
    """A worker a core, and one worker of all cores, with the same global batch."""
    return job, replace(job, workers=1, local_batch=job.workers * job.local_batch)


def _scaling(job: Job) -> Comparison:
    """Two one-core workers against twice a single one, each with the same local batch."""
    two, one = replace(job, cores=2, workers=2), replace(job, cores=1, workers=1)
    return Comparison(subjects=(two,), peers=(one,), peer_factor=2)


_DENSENET = Job(model="densenet121")
_GOOGLENET = Job(model="inception_v1", local_batch=32)
_VGG = Job(model="vgg16", local_batch=8)

_COMPARISONS = {
    "parquet_vs_memory": [
        Comparison(subjects=(_DENSENET,), peers=(replace(_DENSENET, program="benchmarks/in_memory.py"),))
    ],
    "job_vs_keras": [
        Comparison(
            subjects=_layouts(job),
            peers=tuple(Keras(model=job.model, batch=batch, inter_op=n) for batch in batches for n in (1, 2)),
        )
        for job, batches in ((_DENSENET, (16, 32)), (_GOOGLENET, (32, 64)))
    ],
    "job_vs_stock": [
        Comparison(subjects=_layouts(_DENSENET), peers=(Keras(model=_DENSENET.model, batch=32, itex=False),))
    ],
    "layout": [Comparison(subjects=_layouts(job)[:1], peers=_layouts(job)[1:]) for job in (_DENSENET, _GOOGLENET)],
    "scaling_2": [_scaling(_DENSENET), _scaling(_VGG)],
    "bf16": [Comparison(subjects=(_DENSENET,), peers=(replace(_DENSENET, precision="fp32"),))],
}
_COSTS: dict[str, Callable[[], None]] = {
    "start_up": start_up,
    "checkpoint_cost": checkpoint_cost,
    "memory": memory,
}


def main() -> None:
    run_chosen(__doc__, _COMPARISONS, _COSTS)


if __name__ == "__main__":
    main()

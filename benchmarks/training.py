"""How fast a training job is, and against what.

    python benchmarks/training.py [NAME…]

A JSON line a claim on stdout, what is being measured on stderr. Inputs are 224x224 but for `memory` (64x64) and
`bf16_accuracy` (the demo's 96x96). Speeds are those of the steps of a third epoch (of `checkpoint_cost`, a second),
with what happens between them; both sides run in turns, and the best of two turns counts; what the first turn leaves a
twentieth behind its side's best has no second.
"""

from collections.abc import Callable
from dataclasses import replace

from comparisons import Comparison, run_chosen
from costs import checkpoint_cost, memory, start_up
from job_runs import Job
from keras_runs import Keras
from training_accuracy import bf16_accuracy

_FEWEST_STEPS = 4


def _layouts(job: Job) -> tuple[Job, Job]:
    """A worker a core, which exchange gradients in bf16, and one worker of all cores, with the same global batch.

    Both keep decoded images in memory, as their peers do.
    """
    job = replace(job, settings=(*job.settings, "data.cache_mib=1024"))
    one = replace(job, workers=1, local_batch=job.workers * job.local_batch)
    return replace(job, settings=(*job.settings, "training.gradients=bf16")), one


def _larger(job: Job) -> Job:
    """With twice the batch, on the same rows if these are four steps."""
    return replace(job, local_batch=2 * job.local_batch, steps=max(job.steps // 2, _FEWEST_STEPS))


def _scaling(job: Job) -> Comparison:
    """Two one-core workers against twice a single one, each with the same local batch."""
    two, one = replace(job, cores=2, workers=2), replace(job, cores=1, workers=1)
    return Comparison(subjects=(two,), peers=(one,), peer_factor=2)


_DENSENET = Job(model="densenet121")
_GOOGLENET = Job(model="inception_v1", local_batch=32)
_VGG = Job(model="vgg16", local_batch=8, steps=4)

_FROM_PARQUET = replace(_DENSENET, steps=16, settings=("data.shuffle_mib=1",))
"""Of a worker's 7 MB seven windows, each read while the one before it is trained on."""


def _vs_keras(job: Job, *, itex: bool) -> Comparison:
    """Both at one, two and four times the job's global batch; the job's layouts against Keras's operations at once."""
    jobs = (job, _larger(job), _larger(_larger(job)))
    peers = tuple(
        Keras(model=job.model, batch=each.workers * each.local_batch, inter_op=inter_op, itex=itex)
        for each in jobs
        for inter_op in (1, 2)
    )
    return Comparison(subjects=tuple(layout for each in jobs for layout in _layouts(each)), peers=peers)


_COMPARISONS = {
    "parquet_vs_memory": [
        Comparison(subjects=(_FROM_PARQUET,), peers=(replace(_FROM_PARQUET, program="benchmarks/in_memory.py"),))
    ],
    "job_vs_keras": [_vs_keras(job, itex=True) for job in (_DENSENET, _GOOGLENET)],
    "job_vs_stock": [_vs_keras(job, itex=False) for job in (_DENSENET, _GOOGLENET)],
    "layout": [Comparison(subjects=_layouts(job)[:1], peers=_layouts(job)[1:]) for job in (_DENSENET, _GOOGLENET)],
    "scaling_2": [_scaling(_larger(_DENSENET)), _scaling(_VGG)],
    "bf16": [Comparison(subjects=(_DENSENET,), peers=(replace(_DENSENET, precision="fp32"),))],
}
_OTHERS: dict[str, Callable[[], None]] = {
    "start_up": start_up,
    "checkpoint_cost": checkpoint_cost,
    "memory": memory,
    "bf16_accuracy": bf16_accuracy,
}


def main() -> None:
    run_chosen(__doc__, _COMPARISONS, _OTHERS)


if __name__ == "__main__":
    main()

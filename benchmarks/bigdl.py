"""How fast the BigDL engine trains, and against what.

    python benchmarks/bigdl.py [NAME…]

A JSON line a claim on stdout, what is being measured on stderr. All inputs are 224x224, all numbers fp32 unless a
line says bf16, which is left out where the processor has none. Speeds are those of a third epoch's steps, of BigDL's
own program that of its median step; subjects and peers run in turns, and the best of two turns counts (of one, where it
leaves a run a twentieth behind).
"""

from dataclasses import replace

from bigdl_runs import Stock
from comparisons import Comparison, compare
from insitu.cluster.cpu import cpu_flags, trains_in_bf16
from job_runs import CORES, Job
from lines import chosen

_BATCH = 32
_SETTINGS = ("training.engine=bigdl",)


def _bigdl(engine_type: str) -> Job:
    """GoogLeNet on all cores, one worker."""
    settings = (*_SETTINGS, f"training.bigdl.engine_type={engine_type}")
    return Job(model="inception_v1", workers=1, local_batch=_BATCH, precision="fp32", settings=settings, driver_gib=8)


def _scaling() -> Comparison:
    """Two one-core executors against twice a single one, with the same local batch, drivers on these cores too."""
    one = replace(_bigdl("mkldnn"), cores=1, local_batch=_BATCH // 2, executors=1, confined=True)
    two = replace(one, cores=2, workers=2, executors=2)
    return Comparison(subjects=(two,), peers=(one,), peer_factor=2)


_COMPARISONS = {
    "bigdl_vs_stock": [
        Comparison(subjects=(_bigdl(each),), peers=(Stock(engine_type=each, batch=_BATCH),))
        for each in ("mkldnn", "mklblas")
    ],
    "bigdl_scaling_2": [_scaling()],
    "orca_vs_bigdl": [
        Comparison(
            subjects=(Job(model="inception_v1", local_batch=_BATCH // CORES, precision=precision),),
            peers=(_bigdl("mkldnn"), _bigdl("mklblas")),
        )
        for precision in (("bf16", "fp32") if trains_in_bf16(cpu_flags()) else ("fp32",))
    ],
}


def main() -> None:
    names = chosen(__doc__, names=list(_COMPARISONS))
    compare({name: comparisons for name, comparisons in _COMPARISONS.items() if name in names})


if __name__ == "__main__":
    main()

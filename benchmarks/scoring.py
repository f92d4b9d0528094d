"""How fast scheduled scoring is, and against what.

    python benchmarks/scoring.py [NAME…]

A JSON line a claim on stdout, what is being measured on stderr. Inputs are JPEGs of 256x256 that are scored at 224x224,
on all cores. The job's speeds are those of a batch of 2048 rows, those of Spark's own way of 512 rows, each after what
warmed up; subjects and peers run in turns, and the best of two turns counts (of one, where it leaves a run a twentieth
behind).
"""

from collections.abc import Callable

from comparisons import Comparison, run_chosen
from scoring_accuracy import accuracy
from scoring_costs import incremental, scoring_memory
from scoring_runs import Raw, Scoring, Udf

_MODELS = ("resnet50", "densenet121")


def _vs_tensorflow(precision: str) -> list[Comparison]:
    """The job against Spark's own way, each with a task a core and with one task of all cores."""
    return [
        Comparison(
            subjects=tuple(Scoring(model=model, precision=precision, tasks=tasks) for tasks in (1, 2)),
            peers=tuple(Udf(model=model, tasks=tasks, batch=batch) for tasks in (1, 2) for batch in (16, 64)),
        )
        for model in _MODELS
    ]


def _vs_raw(model: str) -> Comparison:
    return Comparison(
        subjects=tuple(Scoring(model=model, precision="int8", tasks=tasks) for tasks in (1, 2)),
        peers=tuple(Raw(model=model, precision="int8", batch=batch) for batch in (1, 16, 32)),
    )


_COMPARISONS = {
    "int8_vs_tf_fp32": _vs_tensorflow("int8"),
    "bf16_vs_tf_fp32": _vs_tensorflow("bf16"),
    "job_vs_raw": [_vs_raw(model) for model in _MODELS],
}
_OTHERS: dict[str, Callable[[], None]] = {
    "accuracy": accuracy,
    "incremental": incremental,
    "scoring_memory": scoring_memory,
}


def main() -> None:
    run_chosen(__doc__, _COMPARISONS, _OTHERS)


if __name__ == "__main__":
    main()

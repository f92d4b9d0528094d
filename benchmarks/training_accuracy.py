"""What bf16 costs in accuracy, on a model that has learned something."""

import tempfile
from pathlib import Path

from job_runs import demo_data, run
from lines import emit
from xrays import BUILD


def bf16_accuracy() -> None:
    """Macro AUC and loss of the demo's recipe on its validation split, trained in bf16 and in fp32 from the same seed.

    The AUC is close to 1 in both; the loss is not.
    """
    bf16, fp32 = (_metrics(precision) for precision in ("bf16", "fp32"))
    for name, unit, less_is_better in (("auc_macro", "macro AUC", False), ("loss", "cross-entropy", True)):
        subject, peer = ("demo in bf16", bf16[name]), ("in fp32", fp32[name])
        emit("bf16_accuracy", subject=subject, peer=peer, unit=unit, less_is_better=less_is_better)


def _metrics(precision: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        places = ["--data", str(demo_data()), "--output", str(Path(scratch) / "model")]
        recipe = ["--recipe", "conf/recipes/demo.yaml", "--set", f"training.precision={precision}"]
        return run(["jobs/train_cnn.py", *recipe, *places])["metrics"]

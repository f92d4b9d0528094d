"""What bf16 costs in accuracy, on a model that has learned something."""

import tempfile
from pathlib import Path

from job_runs import demo_data, run
from lines import emit
from xrays import BUILD


def bf16_accuracy() -> None:
    """Macro AUC of the demo's recipe on its validation split, trained in bf16 and in fp32 from the same seed."""
    bf16, fp32 = (_macro_auc(precision) for precision in ("bf16", "fp32"))
    emit("bf16_accuracy", subject=("demo in bf16", bf16), peer=("in fp32", fp32), unit="macro AUC")


def _macro_auc(precision: str) -> float:
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        places = ["--data", str(demo_data()), "--output", str(Path(scratch) / "model")]
        recipe = ["--recipe", "conf/recipes/demo.yaml", "--set", f"training.precision={precision}"]
        return run(["jobs/train_cnn.py", *recipe, *places])["metrics"]["auc_macro"]

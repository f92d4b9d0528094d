"""What INT8 costs in accuracy, on models that have learned something."""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from insitu import artifact
from job_runs import demo_data, finished, generated, run
from lines import emit
from scoring_runs import scoring
from xrays import BUILD


def accuracy() -> None:
    """Macro AUC on the demo's validation split, and the share of digits that INT8 takes for what fp32 does."""
    found = artifact.read_json(_quantised("demo", demo_data()) / artifact.PROVENANCE)["quantization"]["found"]
    int8, fp32 = (found[form]["metrics"]["auc_macro"] for form in ("int8", "fp32"))
    emit("accuracy", subject=("demo in INT8", int8), peer=("in fp32", fp32), unit="macro AUC")
    digits = generated("digits")
    model = _quantised("digits", digits)
    answers = {precision: _answers(model, digits, precision) for precision in ("int8", "fp32")}
    agreeing = sum(answers["int8"][row] == answer for row, answer in answers["fp32"].items())
    share = agreeing / len(answers["fp32"])
    emit("accuracy", subject=("digits: answers of INT8 that are fp32's", share), peer=("all", 1.0), unit="share")


def _quantised(recipe: str, data: Path) -> Path:
    """A recipe of conf/ trained to its end on its data, and quantised as a user does it; made once."""
    model, quantised = BUILD / f"trained-{recipe}", BUILD / f"trained-{recipe}-quantised"
    where = ["--data", str(data)]
    if not model.exists():
        run(["jobs/train_cnn.py", "--recipe", f"conf/recipes/{recipe}.yaml", *where, "--output", str(model)])
    if not quantised.exists():
        run(["jobs/quantize.py", "--model", str(model), *where, "--output", str(quantised)])
    return quantised


def _answers(model: Path, data: Path, precision: str) -> dict[str, list[str]]:
    """What the validation rows are taken for, by id."""
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        output = Path(scratch) / "scores"
        finished(scoring(model, data, output, precision=precision, where="split=validation"))
        table = pq.read_table(output / "scores", columns=["id", "decision"]).to_pydict()
    return dict(zip(table["id"], table["decision"], strict=True))

"""What INT8 costs in accuracy, on models that have learned something."""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from insitu import artifact
from job_runs import ROOT, finished
from lines import emit
from scoring_runs import program, run, scoring
from xrays import BUILD

_DEMO_DATA = ["xrays", "--images", "5000", "--size", "96", "--seed", "1"]
_DIGITS_DATA = ["digits"]


def accuracy() -> None:
    """Macro AUC on the demo's validation split, and the share of digits that INT8 takes for what fp32 does."""
    found = artifact.read_json(_quantised("demo", _DEMO_DATA) / artifact.PROVENANCE)["quantization"]["found"]
    int8, fp32 = (found[form]["metrics"]["auc_macro"] for form in ("int8", "fp32"))
    emit("accuracy", subject=("demo in INT8", int8), peer=("in fp32", fp32), unit="macro AUC")
    answers = {precision: _answers(_quantised("digits", _DIGITS_DATA), precision) for precision in ("int8", "fp32")}
    agreeing = sum(answers["int8"][row] == answer for row, answer in answers["fp32"].items())
    share = agreeing / len(answers["fp32"])
    emit("accuracy", subject=("digits: answers of INT8 that are fp32's", share), peer=("all", 1.0), unit="share")


def _quantised(recipe: str, data: list[str]) -> Path:
    """A recipe of conf/ trained to its end on its data, and quantised as a user does it; made once."""
    home = BUILD / f"accuracy-{recipe}"
    model, quantised = home / "model", home / "quantised"
    kind, *options = data
    if not (home / "data").exists():
        finished(program(["insitu", "data", kind, str(home / "data"), *options]))
    where = ["--data", str(home / "data")]
    if not model.exists():
        recipe_file = str(ROOT / f"conf/recipes/{recipe}.yaml")
        run(["jobs/train_cnn.py", "--recipe", recipe_file, *where, "--output", str(model)], tasks=1)
    if not quantised.exists():
        run(["jobs/quantize.py", "--model", str(model), *where, "--output", str(quantised)], tasks=1)
    return quantised


def _answers(model: Path, precision: str) -> dict[str, list[str]]:
    """What the validation rows are taken for, by id."""
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        output = Path(scratch) / "scores"
        finished(scoring(model, model.parent / "data", output, precision=precision, where="split=validation"))
        table = pq.read_table(output / "scores", columns=["id", "decision"]).to_pydict()
    return dict(zip(table["id"], table["decision"], strict=True))

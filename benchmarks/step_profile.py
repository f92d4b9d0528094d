"""Where a training step's time goes: oneDNN's primitives, and what is none of them.

    python benchmarks/step_profile.py [MODEL…]

A table a model of benchmarks/keras_fit.py, on all cores, one operation at once: milliseconds a step by primitive and
direction, as oneDNN's own profile (ONEDNN_VERBOSE) has them, and their share of the step.
"""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from insitu.models import names
from lines import chosen

_PROGRAM = Path(__file__).parent / "keras_fit.py"
_STEPS = 12  # of keras_fit.py
_BATCH = 32


def main() -> None:
    for model in chosen(__doc__, names=names()):
        for precision in ("bf16", "fp32"):
            _profile(model, precision)


def _profile(model: str, precision: str) -> None:
    command = [sys.executable, str(_PROGRAM), model, "--batch", str(_BATCH), "--precision", precision]
    plain = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    step = 1000 * _BATCH / float(plain.splitlines()[-1])
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    spent: defaultdict[str, float] = defaultdict(float)
    for line in said.splitlines():
        if line.startswith("onednn_verbose") and ",exec," in line:
            _, kind, _, direction, *_, milliseconds = line.partition(",exec,")[2].split(",")
            spent[f"{kind} {direction}"] += float(milliseconds) / _STEPS
    print(f"{model} {precision}, {_BATCH} images: {step:.0f} ms a step")
    spent["no primitive"] = step - sum(spent.values())
    for name in sorted(spent, key=spent.__getitem__, reverse=True):
        print(f"  {spent[name]:7.1f} ms {spent[name] / step:6.1%}  {name}")


if __name__ == "__main__":
    main()

"""The light entrances stay light: what answers in a second imports none of the heavy libraries."""

import json
import subprocess
import sys

import pytest

HEAVY = {"tensorflow", "keras", "pyspark", "petastorm", "pandas", "bigdl", "sklearn", "mlflow"}
ENTRANCES = [
    *("insitu", "insitu.errors", "insitu.job", "insitu.recipe", "insitu.cli", "insitu.cluster.doctor"),
    *("insitu.data", "insitu.models", "insitu.training", "insitu.training.engines"),
    *("insitu.recommend", "insitu.recommend.recipe", "insitu.tracking"),
]


@pytest.mark.parametrize("module", ENTRANCES)
def test_import_is_light(module: str) -> None:
    assert heavy_modules(f"import {module}") == []


def test_help_is_light() -> None:
    assert heavy_modules("import insitu.cli; sys.argv[1:] = ['--help']; insitu.cli.main()") == []


def test_first_step_does_not_wait_for_scikit_learn() -> None:
    assert "sklearn" not in heavy_modules("import insitu.training.callback_list, insitu.training.worker")


def heavy_modules(statement: str) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded when `statement` is through."""
    code = f"import atexit, json, sys; atexit.register(lambda: print(json.dumps(list(sys.modules)))); {statement}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(HEAVY & {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])})

"""Hand-written Keras in a process of its own, with Intel's extension for TensorFlow or without."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow

from xrays import BUILD

_HERE = Path(__file__).parent
_PLUGIN = ("tensorflow-plugins", "intel_extension_for_tensorflow")


@dataclass(frozen=True, kw_only=True)
class Keras:
    """`Model.fit` on all cores.

    Attributes:
        model: the topology.
        batch: images a step.
        precision: bf16 or fp32.
        itex: with Intel's extension.
        inter_op: operations that TensorFlow runs at once.
    """

    model: str
    batch: int
    precision: str = "bf16"
    itex: bool = True
    inter_op: int = 1

    def __str__(self) -> str:
        backend = "ITEX" if self.itex else "stock TensorFlow"
        return f"Keras fit {self.model} {self.precision}, {backend}, {self.batch} images, {self.inter_op} inter-op"

    def images_per_second(self) -> float:
        """Of ten steps after two."""
        flags, path = ([], []) if self.itex else (["-S"], [str(_site_without_plugin())])
        program = [str(_HERE / "keras_fit.py"), self.model, "--batch", str(self.batch), "--precision", self.precision]
        program += ["--inter-op", str(self.inter_op)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_HERE.parent / "libs"), *path])}
        done = subprocess.run(
            [sys.executable, *flags, *program], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return float(done.stdout.splitlines()[-1])


def _site_without_plugin() -> Path:
    """The environment's packages but for the plugin, which TensorFlow loads wherever it finds it in site-packages."""
    stock = BUILD / "stock"
    stock.mkdir(parents=True, exist_ok=True)
    for package in Path(pyarrow.__file__).parent.parent.iterdir():
        link = stock / package.name
        if not package.name.startswith(_PLUGIN) and not link.is_symlink():
            link.symlink_to(package)
    return stock

"""Every topology under BigDL's two engine types.

    python benchmarks/engine_types.py [TOPOLOGY…]

A JSON line a topology on stdout, what is being measured on stderr. Forward and backward passes on all cores, of random
images of 224x224 in fp32: mkldnn of the whole batch, mklblas of a part on each core, as in training. A speed is that of
the median of five passes after three; the two engine types run in turns, each in a JVM of its own, and the best of two
turns counts.
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

import insitu
from comparisons import Comparison, compare
from insitu.bigdl.convert import convert
from insitu.models import build, names
from job_runs import CORES
from lines import chosen

_HEAP = "18g"
_SIZE = 224
_CLASSES = 14
_BATCH = 8

_WARM_PASSES, _PASSES = 3, 5


@dataclass(frozen=True, kw_only=True)
class _Passes:
    model: str
    engine_type: str

    def __str__(self) -> str:
        return f"{self.model} fp32, {self.engine_type}, {CORES} threads, {_BATCH} images"

    def images_per_second(self) -> float:
        """Of the median pass."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            return child.submit(_images_per_second, self).result()


def _images_per_second(run: _Passes) -> float:
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--master local[{CORES}] --driver-memory {_HEAP} pyspark-shell"
    jvm = _jvm()
    jvm.com.intel.analytics.bigdl.insitu.Compute.begin(run.engine_type, CORES)
    networks = _networks(run)
    rows = _BATCH // len(networks)
    images = [_random(rows, 3, _SIZE, _SIZE) for _ in networks]
    gradients = [_random(rows, _CLASSES) for _ in networks]
    seconds = []
    # Each thread has one of its own in the JVM, and MKL's setting counts for that one.
    one_thread = jvm.com.intel.analytics.bigdl.mkl.MKL.setNumThreads
    with ThreadPoolExecutor(len(networks), initializer=one_thread, initargs=(1,)) as pool:
        for _ in range(_WARM_PASSES + _PASSES):
            started = time.perf_counter()
            list(pool.map(_pass, networks, images, gradients))
            seconds.append(time.perf_counter() - started)
    return _BATCH / median(seconds[_WARM_PASSES:])


def _networks(run: _Passes) -> list[Any]:
    model = build(run.model, size=(_SIZE, _SIZE), channels=3, outputs=_CLASSES, activation="sigmoid")
    network = _jvm().com.intel.analytics.bigdl.insitu.Network
    first = network.build(convert(model).topology, run.engine_type, _BATCH)
    first.parameters().rand(-0.02, 0.02)
    return [first, *(first.replica() for _ in range(1, CORES if run.engine_type == "mklblas" else 1))]


def _pass(network: Any, images: Any, gradient: Any) -> None:
    network.zeroGradients()
    network.forward(images)
    network.backward(images, gradient)


def _jvm() -> Any:
    return _context()._jvm


def _context() -> Any:
    return insitu.spark_session("engine types").sparkContext


def _random(*shape: int) -> Any:
    """A tensor of the JVM's, of numbers in 0..1."""
    jvm, tensors = _jvm(), _jvm().com.intel.analytics.bigdl.dllib.tensor
    sizes = _context()._gateway.new_array(jvm.int, len(shape))
    for dimension, size in enumerate(shape):
        sizes[dimension] = size
    numeric = getattr(getattr(tensors, "TensorNumericMath$TensorNumeric$NumericFloat$"), "MODULE$")
    tensor = getattr(getattr(tensors, "Tensor$"), "MODULE$")
    return tensor.apply(sizes, jvm.scala.reflect.ClassTag.Float(), numeric).rand()


def main() -> None:
    asked = chosen(__doc__, names=names())
    passes = ([_Passes(model=model, engine_type=each) for model in asked] for each in ("mkldnn", "mklblas"))
    compare({"engine_types": [Comparison(subjects=(dnn,), peers=(blas,)) for dnn, blas in zip(*passes, strict=True)]})


if __name__ == "__main__":
    main()

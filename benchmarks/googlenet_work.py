"""How much work an image is to the two GoogLeNets of `bigdl_vs_stock`.

    python benchmarks/googlenet_work.py

A JSON line on stdout: multiplications of a forward pass at 224x224 in convolutions and dense layers, ours against
those of `DistriOptimizerPerf`.
"""

import math
import os
from collections.abc import Iterator
from typing import Any

from py4j.java_gateway import is_instance_of

import insitu
from insitu.models import build
from lines import emit

_SIZE = 224
_CLASSES = 14  # as many as the benchmarks' X-rays have
_PERF_CLASSES = 1000


def _ours() -> int:
    model = build("inception_v1", size=(_SIZE, _SIZE), channels=3, outputs=_CLASSES, activation="sigmoid")
    kernels = [(layer, math.prod(layer.kernel.shape)) for layer in model.layers if hasattr(layer, "kernel")]
    return sum(size * math.prod(layer.output_shape[1:-1]) for layer, size in kernels)


def _theirs() -> int:
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[1] --driver-memory 4g pyspark-shell"
    context: Any = insitu.spark_session("googlenet work").sparkContext
    dllib = context._jvm.com.intel.analytics.bigdl.dllib
    context._jvm.com.intel.analytics.bigdl.insitu.Compute.begin("mklblas", 1)
    network = getattr(getattr(dllib.models.inception, "Inception_v1$"), "MODULE$").apply(_PERF_CLASSES, True)
    sizes = context._gateway.new_array(context._jvm.int, 4)
    sizes[0], sizes[1], sizes[2], sizes[3] = 1, 3, _SIZE, _SIZE
    numeric = getattr(getattr(dllib.tensor, "TensorNumericMath$TensorNumeric$NumericFloat$"), "MODULE$")
    tensors = getattr(getattr(dllib.tensor, "Tensor$"), "MODULE$")
    network.forward(tensors.apply(sizes, context._jvm.scala.reflect.ClassTag.Float(), numeric))
    return sum(_multiplications(layer) for layer in _layers(network, context._gateway))


def _layers(module: Any, gateway: Any) -> Iterator[Any]:
    if not is_instance_of(gateway, module, "com.intel.analytics.bigdl.dllib.nn.Container"):
        yield module
        return
    children = module.modules()
    for i in range(children.size()):
        yield from _layers(children.apply(i), gateway)


def _multiplications(layer: Any) -> int:
    kind = layer.getClass().getSimpleName()
    if kind not in ("SpatialConvolution", "Linear"):
        return 0
    places = math.prod(layer.output().size()[2:]) if kind == "SpatialConvolution" else 1
    return layer.weight().nElement() * places


def main() -> None:
    emit(
        "googlenet_work",
        subject=("inception_v1", _ours() / 1e6),
        peer=("DistriOptimizerPerf's Inception_v1", _theirs() / 1e6),
        unit="million multiplications an image",
        less_is_better=True,
    )


if __name__ == "__main__":
    main()

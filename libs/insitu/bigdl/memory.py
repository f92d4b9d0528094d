"""What training with BigDL takes in an executor's memory, estimated before it starts.

Legend: b local batch, P trainable parameters; 4 bytes a number.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from insitu.bigdl.converted import Converted
from insitu.cluster.executors import is_local
from insitu.cluster.machine import usable_memory_bytes
from insitu.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FLOAT = 4
_VECTORS = 8
"""Of P numbers each: weights, their copy for the block manager, gradients with theirs, and the optimiser's state."""
_SPARK_BYTES = 600 * 2**20
"""Spark's own heap."""
_JVM_BYTES = 384 * 2**20
"""What a JVM takes beside its heap, for classes, code, stacks and buffers: Spark's least overhead."""
_ROW_BYTES = 128
"""Of the Java objects around a row that waits."""
_OVERHEAD_FACTORS = {"yarn": "0.1", "k8s": "0.4"}
"""Spark's defaults of a Python application, by master."""


@dataclass(frozen=True)
class Memory:
    """Bytes of an executor: Java's heap, and what native code and Java itself take beside it."""

    heap: int
    native: int


def estimate(
    converted: Converted,
    engine_type: str,
    *,
    local_batch: int,
    threads: int,
    workers: int,
    input_bytes: int,
    window_rows: int,
    row_bytes: float,
) -> Memory:
    """What the workers of an executor take, without what decoding a very large image takes meanwhile.

    Under mkldnn activations and a second copy of the weights are native. Under mklblas they are heap: for each row the
    activations and their gradients, the patches of the convolutions for either pass and the gradients of their
    kernels; and for each thread the gradients of all parameters.

    Args:
        converted: the topology.
        engine_type: mklblas or mkldnn.
        local_batch, threads: of a worker.
        workers: on the executor.
        input_bytes: of a row that the network reads.
        window_rows: that are shuffled together.
        row_bytes: of one of these, as it is stored.
    """
    # Training and, meanwhile, validation hold a batch ahead of each thread and one that waits; one is in use, twice: as
    # pixels and as the network reads them.
    batches = (2 * (threads + 1) + 2) * local_batch * input_bytes
    rows = batches + 2 * int(window_rows * (row_bytes + _ROW_BYTES))
    parameters = _FLOAT * sum(variable.size for variable in converted.parameters)
    activations = 2 * _FLOAT * local_batch * sum(node.outputs for node in converted.nodes)
    if engine_type == "mkldnn":
        heap = _SPARK_BYTES + workers * (rows + _VECTORS * parameters)
        return Memory(heap, native=_JVM_BYTES + int(1.2 * workers * (activations + 4 * parameters)))
    patches = 2 * sum(node.columns for node in converted.nodes)
    kernels = sum(variable.size for variable in converted.parameters if variable.rank == 4)
    buffers = activations + _FLOAT * local_batch * (patches + kernels) + threads * parameters
    return Memory(_SPARK_BYTES + workers * (rows + _VECTORS * parameters + buffers), native=_JVM_BYTES)


def check_memory(spark: "SparkSession", needed: Memory, engine_type: str, *, images: int) -> None:
    """Refuse a run that does not fit its executors.

    Args:
        spark: the session.
        needed: by each executor.
        engine_type: that needs it.
        images: of an executor in a step.

    Raises:
        UserError: naming Spark's setting, what it is and what is needed.
    """
    local = is_local(spark)
    setting = "spark.driver.memory" if local else "spark.executor.memory"
    heap = _bytes(spark, setting, "1g")
    if needed.heap > heap:
        raise _too_small(setting, heap, needed.heap, engine_type, images)
    if local and needed.native + heap > usable_memory_bytes():
        problem = (
            f"{images} images under {engine_type} need about {_rounded_up(needed.native)} beside Java's heap of "
            f"{_size(heap)}, and this machine has {_size(usable_memory_bytes())}"
        )
        raise UserError("training.global_batch", problem, f"lower it, or {setting}")
    master = (spark.sparkContext.master or "").partition(":")[0]
    if master not in _OVERHEAD_FACTORS:  # others do not bound what an executor takes beside its heap
        return
    setting = "spark.executor.memoryOverhead"
    factor = float(spark.sparkContext.getConf().get(f"{setting}Factor", _OVERHEAD_FACTORS[master]))
    overhead = _bytes(spark, setting, f"{max(384, int(factor * heap) // 2**20)}m")
    if needed.native > overhead:
        raise _too_small(setting, overhead, needed.native, engine_type, images)


def _too_small(setting: str, given: int, needed: int, engine_type: str, images: int) -> UserError:
    less = ", or training.bigdl.engine_type=mkldnn" if engine_type == "mklblas" else ""
    enough = _rounded_up(needed)
    return UserError(
        setting,
        f"{_size(given)}, and {images} images an executor under {engine_type} need about {enough}",
        f"give --conf {setting}={enough}, or a smaller training.global_batch{less}",
    )


def _bytes(spark: "SparkSession", setting: str, default: str) -> int:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    value = spark.sparkContext.getConf().get(setting, default)
    return int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(value)) * 2**20


def _rounded_up(size: int) -> str:
    step = 2**30 if size > 4 * 2**30 else 2**28
    return _size(-(-size // step) * step)


def _size(size: int) -> str:
    """As Spark's settings are written."""
    return f"{size // 2**20}m" if size % 2**30 else f"{size // 2**30}g"

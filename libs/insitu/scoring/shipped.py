"""A model on its way to the executors: verified on the driver, fetched once a host, loaded once a Python worker."""

import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from insitu import artifact
from insitu.cluster.threads import claim_cores
from insitu.errors import UserError
from insitu.registry import find_model
from insitu.scoring import ir

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Runtime = Literal["openvino", "tensorflow", "bigdl"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

_MODELS_KEPT = 16


@dataclass(frozen=True)
class ShippedModel:
    """What goes to the executors in a model's place; a Python worker loads it by `load`.

    Attributes:
        id: the first 12 digits of the SHA-256 of the directory's checksums.
        directory: URI of the model directory.
        archive: a name among Spark's archives; of bigdl "", which sends a model with each DataFrame.
        runtime, precision: that it computes with.
        signature: of the directory.
        rows: of a batch.
        threads: that compute a batch.
    """

    id: str
    directory: str
    archive: str
    runtime: Runtime
    precision: ir.Precision
    signature: artifact.Signature
    rows: int
    threads: int


def ship(
    spark: "SparkSession",
    directory: str,
    *,
    runtime: Runtime = "openvino",
    precision: ir.Precision | None = None,
    rows: int = 32,
    setting: str = "model_dir",
) -> ShippedModel:
    """Verify a model directory and give Spark what its executors need of it.

    Args:
        spark: the session whose executors score.
        directory: path or URI of a model directory, or of a registry for its current version.
        runtime: openvino computes with the IR that the directory holds, or, in bf16 and fp32, one that is made from
            its Keras model here; tensorflow with the Keras model, and bigdl with what it makes of that, in fp32.
        precision: None is int8 where jobs/quantize.py has made the directory, else fp32.
        rows: of a batch.
        setting: what named the directory, for the errors; of a job, whose other options then have dashes too.

    Raises:
        UserError: no model directory, a file that is not what was written, or a precision or runtime that there is
            none of.
    """
    dashes = "--" if setting.startswith("--") else ""
    if rows < 1:
        raise UserError(f"{dashes}batch", f"{rows}, expected at least 1", "give a larger one")
    directory = find_model(spark, setting, directory)
    precision = _choose(directory, runtime, precision, setting, dashes)
    context = spark.sparkContext
    with artifact.verified(directory, setting=setting, part=artifact.MODEL) as local:
        signature = artifact.Signature.from_json(artifact.read_json(local / artifact.SIGNATURE))
        identity = artifact.identity(str(local))
        name = f"insitu-{identity}-{runtime}-{precision}.zip" if runtime != "bigdl" else ""
        if name and not any(known.endswith(f"/{name}") for known in context.listArchives):
            archive = Path(context._temp_dir) / name  # which lives as long as the session: Spark serves it to executors
            _pack(local, archive, runtime, precision)
            context.addArchive(str(archive))
    threads = int(context.getConf().get("spark.task.cpus", "1"))
    return ShippedModel(identity, directory, name, runtime, precision, signature, rows, threads)


@lru_cache(maxsize=_MODELS_KEPT)
def load(model: ShippedModel) -> ir.Predict:
    """The model, ready to score on this Python worker's cores; the same one for every task of the worker."""
    from pyspark import SparkFiles

    claim_cores(model.threads)
    directory = Path(SparkFiles.get(model.archive))
    if model.runtime == "openvino":
        network = directory / ir.XML
        return ir.compile_network(network, precision=model.precision, rows=model.rows, threads=model.threads)
    return _keras_predict(directory, model.threads)


def _choose(
    directory: str, runtime: Runtime, precision: ir.Precision | None, setting: str, dashes: str
) -> ir.Precision:
    if runtime not in RUNTIMES:
        raise UserError(f"{dashes}runtime", f"{runtime!r}, expected one of {', '.join(RUNTIMES)}", "take one of them")
    if precision is not None and precision not in ir.PRECISIONS:
        raise UserError(
            f"{dashes}precision", f"{precision!r}, expected one of {', '.join(ir.PRECISIONS)}", "take one of them"
        )
    if runtime != "openvino":
        if precision not in (None, "fp32"):
            raise UserError(
                f"{dashes}precision", f"{precision}, and runtime {runtime} computes in fp32", "take openvino"
            )
        return "fp32"
    quantised = artifact.holds(directory, artifact.INT8, setting=setting)
    if precision == "int8" and not quantised:
        raise UserError(
            "--precision", f"int8, and {directory} holds no {artifact.INT8}", "make one by jobs/quantize.py"
        )
    return precision or ("int8" if quantised else "fp32")


def _pack(local: Path, archive: Path, runtime: Runtime, precision: ir.Precision) -> None:
    """Zip what an executor loads; its folders are flat."""
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        if runtime == "tensorflow":
            files = [local / artifact.MODEL]
        else:
            made = local / precision
            if not made.is_dir():
                print(f"model: making {precision} of the Keras model; jobs/quantize.py would keep it", file=sys.stderr)
                made = Path(scratch) / precision
                ir.save(ir.convert(artifact.load_keras(local)), made, precision=precision)
            files = [made / ir.XML, made / ir.WEIGHTS]
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
            for path in files:
                out.write(path, path.name)


def _keras_predict(directory: Path, threads: int) -> ir.Predict:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = artifact.load_keras(directory)
    forward = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    return lambda inputs: forward(tf.constant(inputs)).numpy()

"""OpenVINO's intermediate representation (IR) of a model: made from Keras, stored, and compiled for some cores.

Legend: B rows of a batch, h, w, C the model's input, K classes, I inputs and O outputs of a layer.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from insitu.cluster.cpu import bf16_is_faster, cpu_flags
from insitu.errors import UserError

if TYPE_CHECKING:
    import keras

Precision = Literal["int8", "bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
XML = "model.xml"
WEIGHTS = "model.bin"

Predict = Callable[[np.ndarray], np.ndarray]
"""Inputs [B, h, w, C] → scores, float32 [B, K]."""


@cache
def core() -> Any:
    """This process's `openvino.Core`, which lives as long as it.

    Its CPU plugin gives the thread that loads it another stack for signals, and unmaps that when the plugin goes, in
    whatever thread and order: then the next Ctrl-C would end the process by SIGSEGV (sigstack_manager.cpp of OpenVINO).
    """
    import openvino

    return openvino.Core()


def convert(model: "keras.Model") -> Any:
    """An `openvino.Model` that computes what the Keras model does, of any number of rows."""
    import openvino

    return openvino.convert_model(model, share_weights=False)  # else it reads Keras's memory, also when that is freed


def save(network: Any, directory: Path, *, precision: Precision) -> None:
    """Write `model.xml` and `model.bin`; numbers that are not INT8 are stored in 16 bits unless fp32 is wanted."""
    import openvino

    directory.mkdir(parents=True)
    openvino.save_model(network, directory / XML, compress_to_fp16=precision != "fp32")


def kernels(path: Path) -> list[np.ndarray]:
    """The weights of a stored network's convolutions and matrix products, [O, I, ...]; int8 of those in INT8.

    Args:
        path: of its `model.xml`.
    """
    found = []
    for operation in core().read_model(path).get_ops():
        if operation.get_type_name() in ("Convolution", "MatMul"):
            source = operation.input_value(1).get_node()
            while source.get_type_name() != "Constant":  # what converts or scales it takes it as its first input
                source = source.input_value(0).get_node()
            found.append(source.get_data())
    return found


def has_bf16() -> bool:
    """Whether this processor computes in bf16."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_network(network: Any, *, precision: Precision, rows: int, threads: int) -> Predict:
    """Make a network ready to score batches on this process's cores.

    Args:
        network: an `openvino.Model`, or the path of its `model.xml`.
        precision: that it computes in; what INT8 does not cover is bf16 where that is the faster one, else fp32.
        rows: of a batch, B; a smaller batch is filled up with zeros.
        threads: that compute one batch.

    Returns:
        scores of at most `rows` inputs, float32 [B, K].

    Raises:
        UserError: bf16, on a processor without it.
    """
    if precision == "bf16" and not has_bf16():
        raise UserError("--precision", "bf16, which this processor does not compute", "take int8 or fp32")
    if isinstance(network, Path):
        network = core().read_model(network)
    (entry,) = network.inputs
    network.reshape([rows, *(side.get_length() for side in entry.partial_shape[1:])])
    in_bf16 = precision == "bf16" or (precision == "int8" and has_bf16() and bf16_is_faster(cpu_flags()))
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = core().compile_model(network, "CPU", settings).create_infer_request()

    def predict(inputs: np.ndarray) -> np.ndarray:
        batch = inputs
        if len(inputs) < rows:
            batch = np.zeros((rows, *inputs.shape[1:]), inputs.dtype)
            batch[: len(inputs)] = inputs
        scores = request.infer([batch], share_inputs=True)[0]
        return scores[: len(inputs)].astype(np.float32)

    return predict

"""Doctor's checks that load heavy or native libraries, each in a process of its own: `python -m … NAME`.

A probe prints what it found, and exits with a traceback where the library does not work.
"""

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def itex() -> str:
    """Name the ITEX backend that TensorFlow loaded.

    Raises:
        RuntimeError: TensorFlow runs without Intel's kernels.
    """
    import tensorflow as tf

    tf.constant(0.0)
    loaded = Path("/proc/self/maps").read_text()
    backends = [name for name in ("avx512", "avx2") if f"libitex_cpu_internal_{name}.so" in loaded]
    if not backends:
        raise RuntimeError("TensorFlow loaded no ITEX library")
    return f"active, {backends[0].upper()} backend"


def onednn() -> str:
    """Say whether TensorFlow computes with its own oneDNN what ITEX does not take over with its one.

    Raises:
        RuntimeError: it was turned off.
    """
    from tensorflow.python.util import _pywrap_util_port

    if _pywrap_util_port.IsMklEnabled():
        return "on"
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        raise RuntimeError("TensorFlow runs without oneDNN")
    return "ITEX's alone: TensorFlow turns its own on where a processor has AVX-512 VNNI"


def mkl() -> str:
    """The version of the MKL library in this environment.

    Raises:
        FileNotFoundError: there is none.
        OSError: it does not load.
    """
    directory = Path(sys.prefix) / "lib"
    path = next(iter(sorted(directory.glob("libmkl_rt.so*"))), None)
    if path is None:
        raise FileNotFoundError(f"no libmkl_rt.so in {directory}")
    version = ctypes.create_string_buffer(200)
    ctypes.CDLL(str(path)).mkl_get_version_string(version, len(version))
    return f"{version.value.decode().strip()} ({path.name})"


def parquet() -> str:
    """Write a row of Parquet, and read it back with pyarrow and with petastorm."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as directory:
        pq.write_table(pa.table({"row": [7]}), f"{directory}/rows.parquet")
        rows = {"pyarrow": pq.read_table(directory)["row"].to_pylist(), "petastorm": _petastorm_rows(directory)}
    if any(values != [7] for values in rows.values()):
        raise RuntimeError(f"one row holding 7 was written, and this was read: {rows}")
    return f"pyarrow {pa.__version__} and petastorm read back a row"


def _petastorm_rows(directory: str) -> list[int]:
    from petastorm import make_batch_reader

    with make_batch_reader(f"file://{directory}", reader_pool_type="dummy", num_epochs=1) as reader:
        return [int(value) for batch in reader for value in batch.row]


PROBES: dict[str, Callable[[], str]] = {"itex": itex, "onednn": onednn, "mkl": mkl, "parquet": parquet}

if __name__ == "__main__":
    print(PROBES[sys.argv[1]]())

"""OpenVINO in a process that goes on after it."""

import subprocess
import sys

CTRL_C = """
import gc, os, signal, time
import keras
from insitu.scoring import ir

inputs = keras.Input((8, 8, 3))
network = ir.convert(keras.Model(inputs, keras.layers.Flatten()(inputs)))
first, second = (ir.compile_network(network.clone(), precision="fp32", rows=1, threads=1) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(9)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_models_were_let_go() -> None:
    """OpenVINO's plugin takes the thread's stack for signals with it, unless it is kept: SIGSEGV."""
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

"""OpenVINO in a process that goes on after it."""

import subprocess
import sys

import pytest

SCORING = """
import gc, keras
from insitu.scoring import ir

inputs = keras.Input((8, 8, 3))
network = ir.convert(keras.Model(inputs, keras.layers.Flatten()(inputs)))
first, second = (ir.compile_network(network.clone(), precision="fp32", rows=1, threads=1) for _ in range(2))
del first
gc.collect()
del second
"""


QUANTISATION = """
import gc, keras
import numpy as np
from insitu.scoring import ir
from insitu.scoring.quantizer import quantized, quantized_within

layers = keras.layers
model = keras.Sequential(
    [layers.Conv2D(8, 3), layers.ReLU(), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
)
network = ir.convert(keras.Model(image := keras.Input((16, 16, 3)), model(image)))
ir.compile_network(network.clone(), precision="fp32", rows=4, threads=1)
random = np.random.default_rng(1)
batches = [(random.normal(size=(4, 16, 16, 3)).astype(np.float32), np.zeros(4)) for _ in range(4)]
calibration = {"batches": 4, "ranges": "minmax"}
first = quantized(network, batches, **calibration)
metric = lambda predict, some: -sum(float(abs(predict(inputs)).sum()) for inputs, _ in some)
second = quantized_within(network, batches, batches, metric, **calibration, max_drop=1e-9)
"""


CTRL_C = """
import os, signal, time
gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(9)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("program", [SCORING, QUANTISATION], ids=["scoring", "quantisation"])
def test_ctrl_c_after_models_were_let_go(program: str) -> None:
    """OpenVINO's plugin takes the thread's stack for signals with it, unless that is kept: SIGSEGV."""
    done = subprocess.run([sys.executable, "-c", program + CTRL_C], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["interrupted"]), done.stderr

"""The peer of a scoring job: OpenVINO alone, tensors in memory, its own settings for throughput.

    python benchmarks/openvino_raw.py MODEL.xml BATCH

Prints the images per second.
"""

import argparse
import time

import numpy as np
import openvino

_WARM_UP = 8
_SECONDS = 15.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("batch", type=int)
    args = parser.parse_args()
    core = openvino.Core()
    network = core.read_model(args.model)
    (entry,) = network.inputs
    shape = [args.batch, *(side.get_length() for side in entry.partial_shape[1:])]
    network.reshape(shape)
    compiled = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    queue = openvino.AsyncInferQueue(compiled)
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for _ in range(_WARM_UP):
        queue.start_async([images], share_inputs=True)
    queue.wait_all()
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        queue.start_async([images], share_inputs=True)
        done += args.batch
    queue.wait_all()
    print(done / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
